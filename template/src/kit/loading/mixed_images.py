"""Images of several data sets behind one numbering."""

from collections.abc import Sequence

import numpy as np

from src.kit.loading.balance import cycle
from src.kit.loading.base import Images

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"


class MixedImages:
    """The images of all parts, one part after the other, with one number of channels."""

    def __init__(
        self, parts: Sequence[Images], weights: Sequence[float], channels: int, indices: np.ndarray | None = None
    ) -> None:
        """`weights` say how often the images of each part are drawn; all parts have one height and one width."""
        sizes = {part.shape[:2] for part in parts}
        assert len(sizes) == 1, sizes
        self.parts, self.weights, self.channels = list(parts), list(weights), channels
        self.starts = np.cumsum([0, *map(len, parts)])
        self.indices = np.arange(self.starts[-1]) if indices is None else indices
        self.shape = (*sizes.pop(), channels)
        self.in_memory = all(part.in_memory for part in parts)

    def __len__(self) -> int:
        return len(self.indices)

    def owners(self) -> np.ndarray:
        """Which part each image is from, int64 (N,)."""
        return np.searchsorted(self.starts, self.indices, side="right") - 1

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C)."""
        numbers = self.indices[indices]
        images = np.empty((len(numbers), *self.shape), np.uint8)
        for number, part in enumerate(self.parts):
            own = (numbers >= self.starts[number]) & (numbers < self.starts[number + 1])
            if own.any():
                images[own] = to_channels(part.get(numbers[own] - self.starts[number]), self.channels)
        return images

    def take(self, indices: np.ndarray) -> "MixedImages":
        """The images at these indices, in this order; the parts keep their weights."""
        return MixedImages(self.parts, self.weights, self.channels, self.indices[indices])

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """Draw as many images as there are, each part by its weight: int64 (N,), shuffled.

        A part's images come once each before one comes again, so a part that is drawn less often than it has images
        shows others of them in each epoch.
        """
        owners = self.owners()
        members = [np.flatnonzero(owners == number) for number in range(len(self.parts))]
        weights = np.array([weight if len(own) else 0.0 for weight, own in zip(self.weights, members, strict=True)])
        ends = np.rint(np.cumsum(weights) / weights.sum() * len(self)).astype(np.int64)
        counts = np.diff(ends, prepend=0)
        drawn = [cycle(own, count, rng) for own, count in zip(members, counts, strict=True) if count]
        return rng.permutation(np.concatenate(drawn))


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (B, H, W, 1 or 3) with 1 or 3 channels: grey is repeated, colour becomes its luma."""
    if images.shape[3] == channels:
        return images
    return np.repeat(images, channels, axis=3) if channels == 3 else np.rint(images @ LUMA).astype(np.uint8)[..., None]
