"""Your own images: one folder for each class, either root/<class>/* or root/{train,val,test}/<class>/*."""

import os
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.datasets.base import SUFFIXES, FileImages, Split
from src.datasets.splits import stratified_split
from src.utils.errors import UserError
from src.utils.registry import unknown

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded when they are asked for.

    Where root/train has class folders it is the training split, and a val or test folder beside it is that split. A
    split without a folder of its own is `val_fraction` or `test_fraction` of each class of the training images.
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
    if split != "train" and split in folders:
        found = scan(folders[split])
        for name in found:
            if name not in classes:
                raise UserError(f"{folders[split]}: {unknown('class', name, classes)}")
    paths = [path for images in found.values() for path in images]
    counts = [len(images) for images in found.values()]
    targets = np.repeat(np.array([classes.index(name) for name in found], np.int64), counts)
    whole = Split(FileImages(paths, cfg_data.image_size), targets, classes)
    if split != "train" and split in folders:
        return whole
    fractions = [0.0 if name in folders else cfg_data[f"{name}_fraction"] for name in ("val", "test")]
    train, val, test = stratified_split(targets, fractions, seed)
    return whole.take({"train": train, "val": val, "test": test}[split])


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
