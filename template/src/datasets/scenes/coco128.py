"""COCO128: the first 128 photos of COCO's train2017 and the first 128 of val2017, with YOLO boxes of 80 classes."""

from functools import partial
from pathlib import Path

from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, Scenes, choose_scenes, read_yolo
from src.kit.splitting import SplitRule

FOLDERS = {"train": "train2017", "test": "val2017"}


def build(split: SplitRule, *, root: str = "data/coco128") -> Scenes:
    """Photos with boxes. "val" is cut from train2017; "test" is val2017.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    for name in FOLDERS.values():
        if not (folder / "images" / name).is_dir():
            raise UserError(
                f"{folder / 'images' / name} does not exist: run `python scripts/download.py data=coco128`."
            )
    parts = {
        part: partial(read_yolo, folder / "images" / name, folder / "labels" / name, COCO_CLASSES)
        for part, name in FOLDERS.items()
    }
    return choose_scenes(parts, lambda: COCO_CLASSES, split, folder)


def download(*, root: str) -> Path:
    """Download and verify the photos and their label files in `root`."""
    return fetch_dataset("coco128", root)
