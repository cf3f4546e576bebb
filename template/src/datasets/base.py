"""What every data set returns: images that are fetched by index, their class numbers and the class names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from src.datasets.transforms import resize
from src.utils.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 178_000_000  # as RGB half a gigabyte; a few bytes of PNG can claim far more


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
        return np.stack([decode(self.paths[index], self.image_size) for index in indices])

    def take(self, indices: np.ndarray) -> "FileImages":
        """The images at these indices, in this order."""
        return FileImages([self.paths[index] for index in indices], self.image_size)


@dataclass(frozen=True)
class Split:
    """The samples of one split: `targets` are int64 (N,), numbers into `classes`."""

    images: Images
    targets: np.ndarray
    classes: tuple[str, ...]
    flippable: bool = True  # whether a mirrored image still shows its class; a mirrored digit does not

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets), (len(self.images), len(self.targets))
        assert self.targets.dtype == np.int64, self.targets.dtype

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> "Split":
        """The samples at these indices, in this order."""
        return replace(self, images=self.images.take(indices), targets=self.targets[indices])

    def take_classes(self, kept: Sequence[int]) -> "Split":
        """The samples of these classes; `kept[i]` becomes class i."""
        part = self.take(np.flatnonzero(np.isin(self.targets, kept)))
        numbers = np.full(len(self.classes), -1, np.int64)
        numbers[list(kept)] = np.arange(len(kept))
        return replace(part, targets=numbers[part.targets], classes=tuple(self.classes[number] for number in kept))


def decode(path: Path, image_size: int) -> np.ndarray:
    """Decode, rotate as EXIF says, resize the short side to `image_size` and crop the centre: uint8 (S, S, 3).

    Raises:
        UserError: the file is missing, damaged, no image, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            image.draft(None, (image_size, image_size))  # JPEG only: decodes at 1/2, 1/4 or 1/8 of the size
            ImageOps.exif_transpose(image, in_place=True)
            square = ImageOps.fit(to_eight_bits(image), (image_size, image_size), Image.Resampling.BILINEAR)
            return np.asarray(square.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise whatever their format's parser stumbles over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Cannot decode {path}: {reason}. Replace the file or move it out of the data set.") from error


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert to a mode of 8-bit channels that can be resized without mixing palette indices."""
    if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "P", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image
