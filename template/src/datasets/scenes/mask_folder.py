"""Your own images with masks for segmentation: images/*.jpg, masks/*.png and classes.csv with the ids or colours."""

from functools import partial
from pathlib import Path

from src.kit.scenes import Scenes, choose_scenes, find_mask_splits, read_masks, read_table
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/images") -> Scenes:
    """Images with class maps.

    classes.csv has the columns name and id, or name, r, g and b. A mask has its image's name, or that with _mask behind
    it. The splits may be images/train/ and masks/train/ or train/images/ and train/masks/; one without folders is cut
    from the training images: `val_fraction` or `test_fraction` of them.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    table = read_table(folder)
    parts = {part: partial(read_masks, *paths, table) for part, paths in find_mask_splits(folder).items()}
    return choose_scenes(parts, lambda: table.classes, split, folder)
