"""Walk folders of class folders: the one walk that every reader and check uses."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.kit.config import UserError, unknown
from src.kit.loading.base import SUFFIXES

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def collect(folders: Sequence[Path], classes: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """The images of several folders of class folders, and their class numbers int64 (N,)."""
    paths: list[Path] = []
    numbers: list[int] = []
    for folder in folders:
        for name, images in scan(folder).items():
            if name not in classes:
                raise UserError(f"{folder}: {unknown('class', name, classes)}")
            paths += images
            numbers += [classes.index(name)] * len(images)
    return paths, np.array(numbers, np.int64)


def find_splits(root: Path) -> dict[str, Path]:
    """Split -> its folder of class folders; only {"train": root} where root itself holds the classes."""
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: put the images in {root / '<class>'} or set data.root.")
    train = root / "train"
    if not (train.is_dir() and any(child.is_dir() for child in train.iterdir())):
        return {"train": root}
    return {
        split: root / name
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if (root / name).is_dir()
    }


def scan(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its images at any depth, sorted; folders without images and hidden files are left out."""
    found: dict[str, list[Path]] = {}
    children = sorted(folder.iterdir()) if folder.is_dir() else []
    for child in children:
        if child.is_dir() and not child.name.startswith("."):
            paths = [
                Path(parent, name)
                for parent, _, names in os.walk(child)
                for name in names
                if name.lower().endswith(SUFFIXES) and not name.startswith(".")
            ]
            if paths:
                found[child.name] = sorted(paths)
    return found
