"""What every data set returns: images that are fetched by index, their class numbers and the class names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from src.kit.loading.decode import decode
from src.kit.loading.jpeg import to_planes
from src.kit.loading.transforms import resize

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


class Images(Protocol):
    """Images of one size, in memory or in files."""

    shape: tuple[int, int, int]  # (H, W, C) of every image
    in_memory: bool

    def __len__(self) -> int: ...

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C), a copy. Safe to call from several threads at once."""
        ...

    def take(self, indices: np.ndarray) -> "Images":
        """The images at these indices, in this order."""
        ...


class ArrayImages:
    """Images in memory, resized on the way out where `image_size` is not their own size."""

    in_memory = True

    def __init__(self, array: np.ndarray, image_size: int | None = None) -> None:
        """`array`: uint8 (N, H, W, C)."""
        assert array.dtype == np.uint8, array.dtype
        assert array.ndim == 4, array.shape
        # channels first in memory, as networks read them: then no batch has to be transposed
        self.planes = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        channels, height, width = self.planes.shape[1:]
        self.image_size = image_size
        self.shape = (image_size or height, image_size or width, channels)

    def __len__(self) -> int:
        return len(self.planes)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C)."""
        return resize(self.planes[indices], self.shape[:2]).transpose(0, 2, 3, 1)

    def take(self, indices: np.ndarray) -> "ArrayImages":
        """The images at these indices, in this order."""
        return ArrayImages(self.planes[indices].transpose(0, 2, 3, 1), self.image_size)


class FileImages:
    """RGB images that are decoded from their files, `image_size` x `image_size`, each time they are asked for."""

    in_memory = False

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self.paths = list(paths)
        self.image_size = image_size
        self.shape = (image_size, image_size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3); a file that cannot be decoded is a `UserError` that names it."""
        planes = np.empty((len(indices), 3, self.image_size, self.image_size), np.uint8)
        for image, index in zip(planes, indices, strict=True):
            to_planes(decode(self.paths[index], self.image_size), image)
        return planes.transpose(0, 2, 3, 1)

    def take(self, indices: np.ndarray) -> "FileImages":
        """The images at these indices, in this order."""
        return FileImages([self.paths[index] for index in indices], self.image_size)


@dataclass(frozen=True)
class Split:
    """The samples of one split: `targets` are int64 (N,), numbers into `classes`."""

    content: ClassVar[str] = "one class for each image"  # what tasks learn from
    images: Images
    targets: np.ndarray
    classes: tuple[str, ...]
    flippable: bool = True  # whether a mirrored image still shows its class; a mirrored digit does not
    ids: np.ndarray | None = None  # (N,) numbers in the publisher's order, or names: what splits.json records

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets), (len(self.images), len(self.targets))
        assert self.targets.dtype == np.int64, self.targets.dtype

    def __len__(self) -> int:
        return len(self.targets)

    def class_counts(self) -> np.ndarray:
        """How many samples each class has, int64 (K,)."""
        return np.bincount(self.targets, minlength=len(self.classes))

    def take(self, indices: np.ndarray) -> "Split":
        """The samples at these indices, in this order."""
        ids = None if self.ids is None else self.ids[indices]
        return replace(self, images=self.images.take(indices), targets=self.targets[indices], ids=ids)

    def take_classes(self, kept: Sequence[int]) -> "Split":
        """The samples of these classes; `kept[i]` becomes class i."""
        part = self.take(np.flatnonzero(np.isin(self.targets, kept)))
        numbers = np.full(len(self.classes), -1, np.int64)
        numbers[list(kept)] = np.arange(len(kept))
        return replace(part, targets=numbers[part.targets], classes=tuple(self.classes[number] for number in kept))
