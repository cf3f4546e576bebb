"""Your own images: one folder for each class, either root/<class>/* or root/{train,val,test}/<class>/*."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import SUFFIXES, FileImages, Split, collect, find_splits, scan
from src.kit.splitting import group_by, split_off_val


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded when they are asked for.

    Where root/train has class folders it is the training split, and a val or test folder beside it is that split. A
    split without a folder of its own is `val_fraction` or `test_fraction` of each class of the training images, where
    files of one `group_pattern` stay together. Folds are made of the training and validation images together.
    """
    root = Path(cfg_data.root).expanduser()
    folders = find_splits(root)
    found = scan(folders["train"])
    classes = tuple(found)
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} has images in {len(classes)} class folder{'s' * (len(classes) != 1)} and needs at "
            f"least 2: put the images ({', '.join(SUFFIXES)}) in one folder for each class and set data.root."
        )
    if split in folders and (split == "test" or (split == "val" and cfg_data.fold is None)):
        paths, targets = collect([folders[split]], classes)
        return Split(FileImages(paths, cfg_data.image_size), targets, classes)
    known = [folders["train"]]
    if "val" in folders:
        known += [folders["val"]] if cfg_data.fold is not None else []
        cfg_data = OmegaConf.merge(cfg_data, {"val_fraction": 0.0})
    paths, targets = collect(known, classes)
    groups = None
    if cfg_data.group_pattern:
        groups = group_by([path.relative_to(root).as_posix() for path in paths], cfg_data.group_pattern)
    test_fraction = 0.0 if "test" in folders else cfg_data.test_fraction
    chosen = split_off_val(targets, cfg_data, seed, split, test_fraction, groups)
    return Split(FileImages([paths[index] for index in chosen], cfg_data.image_size), targets[chosen], classes)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images are yours."""
