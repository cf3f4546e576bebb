"""COCO128: the first 128 photos of COCO's train2017 and the first 128 of val2017, with YOLO boxes of 80 classes."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, Scenes, choose, yolo

FOLDERS = {"train": "train2017", "test": "val2017"}


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Photos with boxes. "val" is `val_fraction` of the photos from train2017; "test" those from val2017."""
    root = Path(cfg_data.root).expanduser()
    for name in FOLDERS.values():
        if not (root / "images" / name).is_dir():
            raise UserError(f"{root / 'images' / name} does not exist: run `python scripts/download.py data=coco128`.")
    parts = {
        part: partial(yolo.read, root / "images" / name, root / "labels" / name, COCO_CLASSES)
        for part, name in FOLDERS.items()
    }
    return choose(parts, lambda: COCO_CLASSES, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> Path:
    """Fetch and verify the photos and their label files into `cfg_data.root`."""
    return fetch_dataset("coco128", cfg_data.root)
