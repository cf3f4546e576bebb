"""The six sizes of YOLOv10 (Wang et al. 2024, arXiv 2405.14458), the same in both frameworks."""

import math
from dataclasses import dataclass

from src.kit.config import UserError


@dataclass(frozen=True)
class Size:
    """`depth` scales the numbers of blocks, `width` the channels; `compact` names the stages with compact blocks."""

    depth: float
    width: float
    max_channels: int  # before scaling
    compact: tuple[str, ...]
    large_kernel: bool = False  # for the sizes whose receptive field is small

    def channels(self, base: int) -> int:
        """Return the channels of a layer that has `base` at full size, a multiple of 8."""
        return math.ceil(min(base, self.max_channels) * self.width / 8) * 8

    def blocks(self, base: int) -> int:
        """Return the number of blocks of a stage that has `base` at full size."""
        return max(1, round(base * self.depth))


SIZES = {
    "n": Size(0.33, 0.25, 1024, ("up5",), large_kernel=True),
    "s": Size(0.33, 0.50, 1024, ("backbone5", "up5"), large_kernel=True),
    "m": Size(0.67, 0.75, 768, ("backbone5", "up4", "up5")),
    "b": Size(0.67, 1.00, 512, ("backbone5", "down4", "up4", "up5")),
    "l": Size(1.00, 1.00, 512, ("backbone5", "down4", "up4", "up5")),
    "x": Size(1.00, 1.25, 512, ("backbone4", "backbone5", "down4", "up4", "up5")),
}


def check_image_size(image_size: int) -> None:
    """Refuse sizes that cannot be halved five times.

    Raises:
        UserError: names the nearest size that can.
    """
    if image_size % 32:
        fitting = max(32, round(image_size / 32) * 32)
        raise UserError(f"YOLOv10 needs images of a size that 32 divides, not of {image_size} pixels: use {fitting}.")
