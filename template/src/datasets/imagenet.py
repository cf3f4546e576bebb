"""ImageNet-1K: 1.28 million photos in 1,000 classes, from the archives that its publisher gives out after a login.

Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575
"""

from collections import Counter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import SYNSETS, find_spec, prepare_imagenet
from src.kit.config import UserError
from src.kit.loading import FileImages, Split, scan
from src.kit.splitting import group_by, split_off_val


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded when they are asked for.

    "val" is `val_fraction` of the 1,281,167 training images, to choose models by; "test" is the publisher's validation
    set of 50,000, which papers report on (the labels of its own test set are secret). The classes are numbered in the
    order of their WordNet ids, as published weights number them.
    """
    root = Path(cfg_data.root).expanduser()
    folder = root / ("val" if split == "test" else "train")
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run `python scripts/download.py data=imagenet`.")
    found = scan(folder)
    classes = read_classes(root)
    if sorted(found) != sorted(classes):
        wrong = min(set(found) ^ set(classes))
        raise UserError(
            f"{folder} has images in {len(found)} class folders and should have {len(classes)}; {wrong} is the first "
            "that is missing or too many: delete the folder and run `python scripts/download.py data=imagenet`."
        )
    paths = [path for wnid in classes for path in found[wnid]]
    targets = np.repeat(np.arange(len(classes), dtype=np.int64), [len(found[wnid]) for wnid in classes])
    if split != "test":
        pattern = cfg_data.group_pattern
        groups = group_by([path.relative_to(root).as_posix() for path in paths], pattern) if pattern else None
        chosen = split_off_val(targets, cfg_data, seed, split, groups=groups)
        paths, targets = [paths[index] for index in chosen], targets[chosen]
    return Split(FileImages(paths, cfg_data.image_size), targets, tuple(classes.values()))


def read_classes(root: Path) -> dict[str, str]:
    """WordNet id -> class name, sorted by id: its first synonym, with the id where several classes share that."""
    path = root / SYNSETS
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `python scripts/download.py data=imagenet`.")
    rows = [line.split(" ", 1) for line in sorted(path.read_text("utf-8").splitlines())]
    first = {wnid: words.split(",")[0] for wnid, words in rows}
    counts = Counter(first.values())
    return {wnid: name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in first.items()}


def download(cfg_data: DictConfig) -> Path:
    """Make `train`, `val` and the class names of the three archives in `cfg_data.root`, or say how to get them."""
    return prepare_imagenet(Path(cfg_data.root).expanduser(), find_spec("imagenet"))
