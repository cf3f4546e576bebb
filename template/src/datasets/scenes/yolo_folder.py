"""Your own images with YOLO labels: images/{train,val,test}/*.jpg, labels/{train,val,test}/*.txt and data.yaml."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.kit.scenes import Scenes, choose, yolo


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Images with boxes, and outlines where every object has one.

    The class names are the `names` of data.yaml. A split without folders of its own is `val_fraction` or
    `test_fraction` of the training images.
    """
    root = Path(cfg_data.root).expanduser()
    classes = yolo.read_classes(root)
    parts = {part: partial(yolo.read, *places, classes) for part, places in yolo.find_yolo_splits(root).items()}
    return choose(parts, lambda: classes, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images are yours."""
