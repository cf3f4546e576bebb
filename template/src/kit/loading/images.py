"""Image classification data: images fetched by index, their class numbers and the class names."""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from src.kit.config import UserError, refuse_url, unknown
from src.kit.inference import PLAIN, Reading, count_channels, decode, resize, to_channels, to_planes
from src.kit.loading.broken import list_broken
from src.kit.storage import sort_paths

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= {"val": "val", "valid": "val", "validation": "val"}
FILES = (".csv", ".gz", ".json", ".tar", ".tgz", ".txt", ".yaml", ".yml", ".zip")  # what may be given as data.root
NOT_DATA = ("@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN")  # what file servers and systems add to folders


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
    """Images in memory, resized when they are fetched if `image_size` isn't their own size."""

    in_memory = True

    def __init__(self, array: np.ndarray, image_size: int | None = None) -> None:
        """`array`: uint8 (N, H, W, C), from 0 to 255.

        Raises:
            UserError: another type or shape, as a data set of one's own may have.
        """
        if array.dtype != np.uint8 or array.ndim != 4:
            raise UserError(
                f"ArrayImages takes uint8 (N, H, W, C) of 0 to 255, not {array.dtype} {array.shape}: convert the "
                "images, such as with (255 * images).round().astype(np.uint8) and images[..., None]."
            )
        # channels first, as networks read them, so that no batch has to be transposed
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
    """Images of `image_size` x `image_size`, decoded from their files each time they are fetched.

    They are RGB, unless `reading` chooses other bands.
    """

    in_memory = False

    def __init__(self, paths: Sequence[Path], image_size: int, reading: Reading = PLAIN) -> None:
        self.paths = list(paths)
        self.image_size, self.reading = image_size, reading
        self.shape = (image_size, image_size, count_channels(reading))

    def __len__(self) -> int:
        return len(self.paths)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C).

        Raises:
            UserError: a file can't be decoded; the message names all such files.
        """
        planes = np.empty((len(indices), self.shape[2], self.image_size, self.image_size), np.uint8)
        for image, index in zip(planes, indices, strict=True):
            try:
                pixels = decode(self.paths[index], self.image_size, self.reading)
            except UserError as error:
                raise list_broken(self, self.reading, error) from error
            to_planes(pixels, image)
        return planes.transpose(0, 2, 3, 1)

    def take(self, indices: np.ndarray) -> "FileImages":
        """The images at these indices, in this order."""
        return FileImages([self.paths[index] for index in indices], self.image_size, self.reading)

    def read_as(self, reading: Reading) -> "FileImages":
        """The same files, read in other bands, range or on another background."""
        return FileImages(self.paths, self.image_size, reading)

    def sources(self, indices: np.ndarray) -> list[Path]:
        """The files of these images."""
        return [self.paths[index] for index in indices]


class MixedImages:
    """Images of several data sets under one numbering, each converted to the same number of channels."""

    def __init__(
        self, parts: Sequence[Images], weights: Sequence[float], channels: int, indices: np.ndarray | None = None
    ) -> None:
        """`weights` say how often each part's images are drawn. All parts must have the same height and width."""
        sizes = {part.shape[:2] for part in parts}
        assert len(sizes) == 1, sizes
        self.parts, self.weights, self.channels = list(parts), list(weights), channels
        self.starts = np.cumsum([0, *map(len, parts)])
        self.indices = np.arange(self.starts[-1]) if indices is None else indices
        self.shape = (*sizes.pop(), channels)
        self.in_memory = all(part.in_memory for part in parts)
        self.reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def owners(self) -> np.ndarray:
        """The number of the part that each image comes from, int64 (N,)."""
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
        part = copy(self)
        part.indices = self.indices[indices]
        return part

    def read_as(self, reading: Reading) -> "MixedImages":
        """The same images, read in another range or on another background where they are in files; else `self`."""
        if reading["bands"] is not None:
            raise UserError("data.bands is for the images of one data set: a mixture is grey or RGB, by its data.mean.")
        if not any(hasattr(part, "read_as") for part in self.parts):
            return self
        mixed = copy(self)
        mixed.parts = [part.read_as(reading) if hasattr(part, "read_as") else part for part in self.parts]
        mixed.reading = reading
        return mixed

    def sources(self, indices: np.ndarray) -> list[Path]:
        """The files of those of these images that are in files."""
        numbers, owners, found = self.indices[indices], self.owners()[indices], list[Path]()
        for number, part in enumerate(self.parts):
            if isinstance(part, FileImages):
                found += part.sources(numbers[owners == number] - self.starts[number])
        return found

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """Draw `len(self)` images, from each part by its weight: int64 (N,), shuffled.

        No image of a part repeats before all of them have been drawn. A part that is drawn less often than it has
        images shows different ones in each epoch.
        """
        owners = self.owners()
        members = [np.flatnonzero(owners == number) for number in range(len(self.parts))]
        weights = np.array([weight if len(own) else 0.0 for weight, own in zip(self.weights, members, strict=True)])
        ends = np.rint(np.cumsum(weights) / weights.sum() * len(self)).astype(np.int64)
        counts = np.diff(ends, prepend=0)
        drawn = [draw_in_rounds(own, count, rng) for own, count in zip(members, counts, strict=True) if count]
        return rng.permutation(np.concatenate(drawn))


def draw_in_rounds(samples: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the samples; none repeats before all of them have been drawn equally often."""
    rounds = [rng.permutation(samples) for _ in range(-(-count // len(samples)))]
    return np.concatenate([samples[:0], *rounds])[:count]


@dataclass(frozen=True)
class Split:
    """The samples of one split: `targets` are int64 (N,), indices into `classes`."""

    content: ClassVar[str] = "one class for each image"  # what tasks learn from
    images: Images
    targets: np.ndarray
    classes: tuple[str, ...]
    flippable: bool = True  # whether a mirrored image still shows its class; a mirrored digit does not
    ids: np.ndarray | None = None  # (N,) numbers in the publisher's order, or names: splits.json records them

    def __post_init__(self) -> None:
        """Check what a data set of one's own may get wrong.

        Raises:
            UserError: not one class number for each image.
        """
        found = np.asarray(self.targets)
        if found.dtype != np.int64 or found.shape != (len(self.images),):
            raise UserError(
                f"Split takes targets int64 (N,), a class number for each of its {len(self.images):,} images, not "
                f"{found.dtype} {found.shape}: convert them, such as with np.asarray(labels, np.int64)."
            )
        if len(found) and not 0 <= found.min() <= found.max() < len(self.classes):
            raise UserError(
                f"Split has targets from {found.min()} to {found.max()}, but {len(self.classes)} classes, which are "
                "numbered from 0."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def class_counts(self) -> np.ndarray:
        """Number of samples of each class, int64 (K,)."""
        return np.bincount(self.targets, minlength=len(self.classes))

    def take(self, indices: np.ndarray) -> "Split":
        """The samples at these indices, in this order."""
        ids = None if self.ids is None else self.ids[indices]
        return replace(self, images=self.images.take(indices), targets=self.targets[indices], ids=ids)

    def read_as(self, reading: Reading) -> "Split":
        """The same samples with their images read so; `self` if they are in memory."""
        images = self.images.read_as(reading) if hasattr(self.images, "read_as") else self.images
        return self if images is self.images else replace(self, images=images)

    def sources(self, indices: np.ndarray) -> list[Path | bytes]:
        """The files, or their contents, of these samples; none of images in memory."""
        return list(self.images.sources(indices)) if hasattr(self.images, "sources") else []

    def take_classes(self, kept: Sequence[int]) -> "Split":
        """The samples of these classes; `kept[i]` becomes class i."""
        part = self.take(np.flatnonzero(np.isin(self.targets, kept)))
        numbers = np.full(len(self.classes), -1, np.int64)
        numbers[list(kept)] = np.arange(len(kept))
        return replace(part, targets=numbers[part.targets], classes=tuple(self.classes[number] for number in kept))


def reading_of(dataset: Any) -> Reading | None:
    """How a split's files are read; None for data in memory."""
    reading: Reading | None = getattr(getattr(dataset, "images", dataset), "reading", None)
    return reading


def list_images(
    scanned: Mapping[Path, Mapping[str, list[Path]]], classes: tuple[str, ...]
) -> tuple[list[Path], np.ndarray]:
    """The images of several folders, each with what `scan_classes` found in it, and class numbers, int64 (N,)."""
    paths: list[Path] = []
    numbers: list[int] = []
    for folder, found in scanned.items():
        for name, images in found.items():
            if name not in classes:
                raise UserError(f"{folder}: {unknown('class', name, classes)}")
            paths += images
            numbers += [classes.index(name)] * len(images)
    return paths, np.array(numbers, np.int64)


def refuse_file(root: Path) -> None:
    """Refuse a file, such as one that describes the data set, in place of the data set's folder; it may not exist."""
    if root.is_file():
        raise UserError(f"data.root={root} is a file: give the folder of the data set.")
    refuse_url(root, "data.root=")
    if root.suffix.lower() in FILES and not root.exists():
        raise UserError(f"data.root={root} does not exist, and a data set is a folder: give an existing one.")


def find_splits(root: Path) -> dict[str, Path]:
    """Split -> its folder of class folders, whatever its case; only {"train": root} if `root` itself holds the classes.

    Raises:
        UserError: no such folder, two folders for a split, or folders of splits without class folders for training.
    """
    refuse_file(root)
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: put the images in {root / '<class>'} or set data.root.")
    folders = [child for child in sort_paths(root.iterdir()) if child.is_dir() and not is_hidden(child.name)]
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for folder in named:
        found[SPLIT_NAMES[folder.name.lower()]].append(folder)
    if not any(child.is_dir() for folder in found["train"] for child in folder.iterdir()):
        if named and named == folders:
            names = ", ".join(folder.name for folder in named)
            raise UserError(f"{root} has {names} but no class folders for training: add {root / 'train' / '<class>'}.")
        return {"train": root}
    for split, same in found.items():
        if len(same) > 1:
            names = " and ".join(folder.name for folder in same)
            raise UserError(f"{root} has {len(same)} folders for the {split} split, {names}: move them into one.")
    return {split: same[0] for split, same in found.items() if same}


def scan_classes(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its images at any depth, sorted. Skips folders without images, and what `walk` leaves out."""
    children = sort_paths(folder.iterdir()) if folder.is_dir() else []
    found = {child.name: find_images(child) for child in children if child.is_dir() and not is_hidden(child.name)}
    return {name: paths for name, paths in found.items() if paths}


def find_images(folder: Path) -> list[Path]:
    """All image files at any depth, sorted by the parts of their paths."""
    names = [name for name in walk(folder) if name.lower().endswith(SUFFIXES)]
    return [folder / name for name in sorted(names, key=lambda name: name.split("/"))]  # faster than sorting `Path`s


def walk(root: Path) -> list[str]:
    """All files below `root`, sorted; relative to `root`, with slashes.

    Leaves out hidden files and folders, and thumbnails and waste of file servers. Follows links, but reads no folder
    twice.
    """
    found, seen = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        prefix = Path(parent).relative_to(root).as_posix() + "/"
        found += [prefix.removeprefix("./") + name for name in names if not is_hidden(name)]
    return sorted(found)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not part of the data: hidden, or made by a file server."""
    return name.startswith(".") or name in NOT_DATA


def own_order(split: Any) -> Callable[[np.random.Generator], np.ndarray] | None:
    """The images' `epoch_order`, if they are read together and must stay neighbours."""
    images = getattr(split, "images", None)  # annotated images have none, and no order of their own
    own: Callable[[np.random.Generator], np.ndarray] | None = getattr(images, "epoch_order", None)
    return own
