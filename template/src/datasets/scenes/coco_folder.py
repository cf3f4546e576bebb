"""Your own images with COCO annotations: annotations/{train,val,test}.json, with the images in {train,val,test}/."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.kit.scenes import Scenes, choose, coco, find_coco_splits


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Images with boxes, outlines where every object has one, and class maps where there are any.

    `src/kit/scenes/formats/coco_layout.py` says which names of files and folders are understood. A split
    without a file of its own is `val_fraction` or `test_fraction` of the training images.
    """
    found = find_coco_splits(Path(cfg_data.root).expanduser())
    parts = {part: partial(coco.read, *places) for part, places in found.items()}
    return choose(parts, lambda: parts["train"]().classes, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images are yours."""
