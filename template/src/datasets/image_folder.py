"""Your own images: one folder per class, either root/<class>/* or root/{train,val,test}/<class>/*."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from src.kit.config import Range, UserError
from src.kit.loading import SUFFIXES, FileImages, Split, find_splits, list_images, scan_classes
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/images", image_size: Annotated[int, Range(min=1)] = 224) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded on demand.

    If root/train has class folders, it is the training split, and a val or test folder next to it is that split. A
    split without a folder is cut from the training images: `val_fraction` or `test_fraction` of each class, files of
    one `group_pattern` together. Folds are made of the training and validation images.

    Args:
        root: Folder of the images.
        image_size: Height and width in pixels; images are resized and cropped to a square.
    """
    folder = Path(root).expanduser()
    folders = find_splits(folder)
    train = folders["train"]
    scanned = {train: scan_classes(train)}
    classes = tuple(scanned[train])
    if len(classes) < 2:
        raise UserError(
            f"{train} has images in {len(classes)} class folder{'s' * (len(classes) != 1)} and needs at "
            f"least 2: put the images ({', '.join(SUFFIXES)}) in one folder for each class and set data.root."
        )
    if split.name in folders and (split.name == "test" or (split.name == "val" and split.fold is None)):
        own = folders[split.name]
        paths, targets = list_images({own: scan_classes(own)}, classes)
        return Split(FileImages(paths, image_size), targets, classes)
    if "val" in folders:
        if split.fold is not None:
            scanned[folders["val"]] = scan_classes(folders["val"])
        split = replace(split, val_fraction=0.0)
    paths, targets = list_images(scanned, classes)
    chosen = split.choose(targets, paths, test="test" not in folders, root=folder)
    return Split(FileImages([paths[index] for index in chosen], image_size), targets[chosen], classes)
