"""Digits: 1,797 hand-written digits of 8 x 8 pixels that come with scikit-learn, so nothing is downloaded.

Alpaydin and Kaynak, 1998, https://archive.ics.uci.edu/dataset/80
"""

import numpy as np

from src.kit.loading import ArrayImages, Split
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, image_size: int = 8) -> Split:
    """Grey images (N, image_size, image_size, 1); `val_fraction` and `test_fraction` are cut from the one set there is.

    Args:
        image_size: Height and width in pixels; the originals have 8.
    """
    from sklearn.datasets import load_digits  # takes 0.5 s to import

    digits = load_digits()
    targets = digits.target.astype(np.int64)
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # the originals' values are 0 to 16
    chosen = split.choose(targets, test=True)
    classes = tuple(str(digit) for digit in range(10))
    return Split(ArrayImages(images[chosen], image_size), targets[chosen], classes, flippable=False, ids=chosen)
