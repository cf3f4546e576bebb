"""Digits: 1,797 hand-written digits of 8 x 8 that scikit-learn ships, so they need no network.

Alpaydin and Kaynak, 1998, https://archive.ics.uci.edu/dataset/80
"""

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import ArrayImages, Split
from src.kit.splitting import split_off_val


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """Grey images (N, 8, 8, 1); `val_fraction` and `test_fraction` are taken from the one set there is."""
    from sklearn.datasets import load_digits  # 0.5 s to import: only for those who train on it

    digits = load_digits()
    targets = digits.target.astype(np.int64)
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # 16 grey levels above 0
    chosen = split_off_val(targets, cfg_data, seed, split, cfg_data.test_fraction)
    classes = tuple(str(digit) for digit in range(10))
    kept = ArrayImages(images[chosen], cfg_data.image_size)
    return Split(kept, targets[chosen], classes, flippable=False, ids=chosen)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images come with scikit-learn."""
