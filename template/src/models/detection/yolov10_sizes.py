"""The six sizes of YOLOv10 (Wang et al. 2024, arXiv 2405.14458): depth, width, and where its compact blocks stand."""

import math
from dataclasses import dataclass

from src.kit.config import UserError


@dataclass(frozen=True)
class Size:
    """`depth` and `width` scale numbers of blocks and channels; `compact` names the stages with compact blocks."""

    depth: float
    width: float
    most: int  # channels before scaling
    compact: tuple[str, ...]
    large_kernel: bool = False  # only where the receptive field is small otherwise

    def channels(self, base: int) -> int:
        """The channels of a layer that has `base` at full size: a multiple of 8."""
        return math.ceil(min(base, self.most) * self.width / 8) * 8

    def blocks(self, base: int) -> int:
        """The blocks of a stage that has `base` at full size."""
        return max(1, round(base * self.depth))


SIZES = {
    "n": Size(0.33, 0.25, 1024, ("up5",), large_kernel=True),
    "s": Size(0.33, 0.50, 1024, ("backbone5", "up5"), large_kernel=True),
    "m": Size(0.67, 0.75, 768, ("backbone5", "up4", "up5")),
    "b": Size(0.67, 1.00, 512, ("backbone5", "down4", "up4", "up5")),
    "l": Size(1.00, 1.00, 512, ("backbone5", "down4", "up4", "up5")),
    "x": Size(1.00, 1.25, 512, ("backbone4", "backbone5", "down4", "up4", "up5")),
}


def check_size(image_size: int) -> None:
    """Refuse what five halvings don't divide."""
    if image_size % 32:
        fitting = max(32, round(image_size / 32) * 32)
        raise UserError(f"YOLOv10 needs images of a size that 32 divides, not of {image_size} pixels: use {fitting}.")
