"""Digits: 1,797 hand-written digits of 8 x 8 that scikit-learn ships, so they need no network.

Alpaydin and Kaynak, 1998, https://archive.ics.uci.edu/dataset/80
"""

import numpy as np
from omegaconf import DictConfig

from src.datasets.base import ArrayImages, Split
from src.datasets.splits import stratified_split


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """Grey images (N, 8, 8, 1); `val_fraction` and `test_fraction` are taken from the one set there is."""
    from sklearn.datasets import load_digits  # 0.5 s to import: only for those who train on it

    digits = load_digits()
    targets = digits.target.astype(np.int64)
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # 16 grey levels above 0
    train, val, test = stratified_split(targets, (cfg_data.val_fraction, cfg_data.test_fraction), seed)
    chosen = {"train": train, "val": val, "test": test}[split]
    classes = tuple(str(digit) for digit in range(10))
    return Split(ArrayImages(images[chosen], cfg_data.image_size), targets[chosen], classes, flippable=False)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the images come with scikit-learn."""
