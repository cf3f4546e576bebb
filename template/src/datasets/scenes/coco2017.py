"""COCO 2017: 118,287 and 5,000 photos with boxes and outlines of 80 classes; https://arxiv.org/abs/1405.0312."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.datasets.scenes.coco128 import FOLDERS
from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, Scenes, choose, coco


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Photos with boxes and outlines. "val" is `val_fraction` of train2017; "test" is val2017.

    The publisher keeps the labels of test2017 to himself, so val2017 is what results are compared on, and nothing is
    chosen by it here.
    """
    root = Path(cfg_data.root).expanduser()
    parts = {}
    for part, name in FOLDERS.items():
        file = root / "annotations" / f"instances_{name}.json"
        for path in (file, root / name):
            if not path.exists():
                raise UserError(f"{path} does not exist: run `python scripts/download.py data=coco2017` (20 GB).")
        parts[part] = partial(coco.read, file, root / name)
    return choose(parts, lambda: COCO_CLASSES, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> Path:
    """Fetch, verify and unpack photos and annotations into `cfg_data.root`."""
    return fetch_dataset("coco2017", cfg_data.root)
