"""COCO 2017: 118,287 and 5,000 photos with boxes and outlines of 80 classes; https://arxiv.org/abs/1405.0312."""

from functools import partial
from pathlib import Path

from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, Scenes, choose_scenes, read_coco
from src.kit.splitting import SplitRule

FOLDERS = {"train": "train2017", "test": "val2017"}


def build(split: SplitRule, *, root: str = "data/coco2017") -> Scenes:
    """Photos with boxes and outlines. "val" is cut from train2017; "test" is val2017.

    The publisher keeps the labels of test2017 secret, so results are compared on val2017, by which nothing is chosen
    here.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    parts = {}
    for part, name in FOLDERS.items():
        file = folder / "annotations" / f"instances_{name}.json"
        for path in (file, folder / name):
            if not path.exists():
                raise UserError(f"{path} does not exist: run `python scripts/download.py data=coco2017` (20 GB).")
        parts[part] = partial(read_coco, file, folder / name)
    return choose_scenes(parts, lambda: COCO_CLASSES, split, folder)


def download(*, root: str) -> Path:
    """Download, verify and unpack photos and annotations into `root`."""
    return fetch_dataset("coco2017", root)
