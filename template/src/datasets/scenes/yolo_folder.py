"""Your own images with YOLO labels: images/{train,val,test}/*.jpg, labels/{train,val,test}/*.txt and data.yaml."""

from functools import partial
from pathlib import Path

from src.kit.scenes import Scenes, choose_scenes, find_yolo_splits, read_classes, read_keypoints, read_yolo
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/images") -> Scenes:
    """Images with boxes, and outlines if every object has one.

    The class names are the `names` of data.yaml; of pose labels, which have its `kpt_shape`, the boxes are read.
    A split without folders is cut from the training images: `val_fraction` or `test_fraction` of them.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    classes, keypoints = read_classes(folder), read_keypoints(folder)
    parts = {part: partial(read_yolo, *paths, classes, keypoints) for part, paths in find_yolo_splits(folder).items()}
    return choose_scenes(parts, lambda: classes, split, folder)
