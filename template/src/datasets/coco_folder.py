"""Your own images with COCO annotations: annotations/{train,val,test}.json, with the images in {train,val,test}/."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.datasets.formats import coco
from src.datasets.formats.coco_layout import find_splits
from src.datasets.scenes.samples import Scenes
from src.datasets.scenes.scene_splits import choose


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Images with boxes, outlines where every object has one, and class maps where there are any.

    `src/datasets/formats/coco_layout.py` says which names of files and folders are understood. A split
    without a file of its own is `val_fraction` or `test_fraction` of the training images.
    """
    found = find_splits(Path(cfg_data.root).expanduser())
    parts = {part: partial(coco.read, *places) for part, places in found.items()}
    return choose(parts, lambda: parts["train"]().classes, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images are yours."""
