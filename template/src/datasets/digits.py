"""Digits: 1,797 hand-written digits of 8 x 8 pixels that come with scikit-learn, so nothing is downloaded.

Alpaydin and Kaynak, 1998, https://archive.ics.uci.edu/dataset/80
"""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np

from src.kit.config import Range, UserError
from src.kit.loading import ArrayImages, Split
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, image_size: Annotated[int, Range(min=1)] = 8) -> Split:
    """Grey images (N, image_size, image_size, 1); `val_fraction` and `test_fraction` are cut from the one set there is.

    Args:
        image_size: Height and width in pixels; the originals have 8.
    """
    images, targets = read_digits()
    chosen = split.choose(targets, test=True)
    classes = tuple(str(digit) for digit in range(10))
    return Split(ArrayImages(images[chosen, ..., None], image_size), targets[chosen], classes, False, ids=chosen)


@cache
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (1797, 8, 8) and digits int64 (1797,), from scikit-learn's file: importing it takes a second of CPU.

    Raises:
        UserError: scikit-learn is not installed.
    """
    if not (package := find_spec("sklearn")) or not package.submodule_search_locations:
        raise UserError("The digits come with scikit-learn, which is not installed: pip install scikit-learn.")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    values = gzip.decompress(path.read_bytes()).decode().replace("\n", ",").strip(",").split(",")
    rows = np.array(values, np.float64).reshape(-1, 65)
    images = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)  # the originals' values are 0 to 16
    return images, rows[:, 64].astype(np.int64)
