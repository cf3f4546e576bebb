"""Your own images: one folder for each class, either root/<class>/* or root/{train,val,test}/<class>/*."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.datasets.base import SUFFIXES, FileImages, Split
from src.datasets.splitting.splits import group_by, split_off_val
from src.utils.errors import UserError
from src.utils.registry import unknown

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded when they are asked for.

    Where root/train has class folders it is the training split, and a val or test folder beside it is that split. A
    split without a folder of its own is `val_fraction` or `test_fraction` of each class of the training images, where
    files of one `group_pattern` stay together. Folds are made of the training and validation images together.
    """
    root = Path(cfg_data.root).expanduser()
    folders = find_splits(root)
    found = scan(folders["train"])
    classes = tuple(found)
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} has images in {len(classes)} class folder{'s' * (len(classes) != 1)} and needs at "
            f"least 2: put the images ({', '.join(SUFFIXES)}) in one folder for each class and set data.root."
        )
    if split in folders and (split == "test" or (split == "val" and cfg_data.fold is None)):
        paths, targets = collect([folders[split]], classes)
        return Split(FileImages(paths, cfg_data.image_size), targets, classes)
    known = [folders["train"]]
    if "val" in folders:
        known += [folders["val"]] if cfg_data.fold is not None else []
        cfg_data = OmegaConf.merge(cfg_data, {"val_fraction": 0.0})
    paths, targets = collect(known, classes)
    groups = None
    if cfg_data.group_pattern:
        groups = group_by([path.relative_to(root).as_posix() for path in paths], cfg_data.group_pattern)
    test_fraction = 0.0 if "test" in folders else cfg_data.test_fraction
    chosen = split_off_val(targets, cfg_data, seed, split, test_fraction, groups)
    return Split(FileImages([paths[index] for index in chosen], cfg_data.image_size), targets[chosen], classes)


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


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images are yours."""
