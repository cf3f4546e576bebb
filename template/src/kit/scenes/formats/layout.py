"""How data sets name their splits, and which images a folder holds."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from src.kit.loading import SUFFIXES

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Split -> the path whose name says so: train, instances_train, train2017 (and val, valid, validation, test)."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        name = re.fullmatch(r"(?:instances_)?([a-z]+)(?:\d{4})?", path.stem.lower())
        if name and name[1] in SPLITS:
            found.setdefault(SPLITS[name[1]], path)
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def folders(parent: Path) -> list[Path]:
    """The folders in `parent`, none where it does not exist."""
    return [child for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []


def list_images(folder: Path) -> list[Path]:
    """All image files at any depth, sorted; hidden ones are left out."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )
