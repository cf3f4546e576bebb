"""Your own images with COCO annotations: annotations/{train,val,test}.json, with the images in {train,val,test}/."""

from functools import partial
from pathlib import Path

from src.kit.scenes import Scenes, choose_scenes, find_coco_splits, read_coco, refuse_missing_maps
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/images") -> Scenes:
    """Images with boxes, outlines if every object has one, and class maps if there are any.

    The annotations may also be annotations/instances_train2017.json, the only file in annotations/, or
    train/_annotations.coco.json; the images may be in images/train/ or images/, class maps in class_maps/train/. A
    split without a file is cut from the training images: `val_fraction` or `test_fraction` of them.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    splits = find_coco_splits(folder)
    if split.task == "segmentation":
        refuse_missing_maps(folder, splits)
    parts = {part: partial(read_coco, *paths) for part, paths in splits.items()}
    return choose_scenes(parts, lambda: parts["train"]().classes, split, folder)
