"""ImageNet-1K: 1.28 million photos in 1,000 classes, from the archives that the publisher provides after a login.

Russakovsky et al., 2015, https://arxiv.org/abs/1409.0575
"""

from collections import Counter
from pathlib import Path

import numpy as np

from src.kit.catalog import SYNSETS, find_spec, prepare_imagenet
from src.kit.config import UserError
from src.kit.loading import FileImages, Split, scan
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/imagenet", image_size: int = 224) -> Split:
    """RGB images (N, image_size, image_size, 3), decoded on demand.

    "val" is `val_fraction` of the 1,281,167 training images, for choosing models. "test" is the publisher's validation
    set of 50,000, which papers report on (the labels of its own test set are secret). Classes are numbered in the order
    of their WordNet ids, as in published weights.

    Args:
        root: Folder of the data set.
        image_size: Height and width in pixels; images are resized and cropped to a square.
    """
    place = Path(root).expanduser()
    folder = place / ("val" if split.name == "test" else "train")
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run `python scripts/download.py data=imagenet`.")
    images = scan(folder)
    classes = read_classes(place)
    if sorted(images) != sorted(classes):
        wrong = min(set(images) ^ set(classes))
        raise UserError(
            f"{folder} has images in {len(images)} class folders and should have {len(classes)}; {wrong} is the first "
            "that is missing or too many: delete the folder and run `python scripts/download.py data=imagenet`."
        )
    paths = [path for wnid in classes for path in images[wnid]]
    targets = np.repeat(np.arange(len(classes), dtype=np.int64), [len(images[wnid]) for wnid in classes])
    if split.name != "test":
        chosen = split.choose(targets, paths, root=place)
        paths, targets = [paths[index] for index in chosen], targets[chosen]
    return Split(FileImages(paths, image_size), targets, tuple(classes.values()))


def read_classes(root: Path) -> dict[str, str]:
    """WordNet id -> class name, sorted by id: its first synonym, with the id where several classes share that."""
    path = root / SYNSETS
    if not path.is_file():
        raise UserError(f"{path} does not exist: run `python scripts/download.py data=imagenet`.")
    rows = [line.split(" ", 1) for line in sorted(path.read_text("utf-8").splitlines())]
    first = {wnid: words.split(",")[0] for wnid, words in rows}
    counts = Counter(first.values())
    return {wnid: name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in first.items()}


def download(*, root: str) -> Path:
    """Unpack the three archives into `train`, `val` and the class names in `root`, or say how to get them."""
    return prepare_imagenet(Path(root).expanduser(), find_spec("imagenet"))
