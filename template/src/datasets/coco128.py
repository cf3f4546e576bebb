"""COCO128: the first 128 photos of COCO's train2017 and the first 128 of val2017, with YOLO boxes of 80 classes."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.datasets.formats import yolo
from src.datasets.scenes.samples import Scenes
from src.datasets.scenes.scene_splits import choose
from src.datasets.spec import fetch_dataset
from src.utils.errors import UserError

NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush"""
CLASSES = tuple(" ".join(NAMES.split()).split(", "))
FOLDERS = {"train": "train2017", "test": "val2017"}


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Photos with boxes. "val" is `val_fraction` of the photos from train2017; "test" those from val2017."""
    root = Path(cfg_data.root).expanduser()
    for name in FOLDERS.values():
        if not (root / "images" / name).is_dir():
            raise UserError(f"{root / 'images' / name} does not exist: run `python scripts/download.py data=coco128`.")
    parts = {
        part: partial(yolo.read, root / "images" / name, root / "labels" / name, CLASSES)
        for part, name in FOLDERS.items()
    }
    return choose(parts, lambda: CLASSES, cfg_data, split, seed)


def download(cfg_data: DictConfig) -> Path:
    """Fetch and verify the photos and their label files into `cfg_data.root`."""
    return fetch_dataset("coco128", cfg_data.root)
