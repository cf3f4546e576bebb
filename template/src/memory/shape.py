"""What the network sees of a data set: enough to build it, without a single image."""

from dataclasses import dataclass

import numpy as np
from omegaconf import DictConfig

from src.datasets import build_dataset


@dataclass(frozen=True)
class Shape:
    """Classes, channels and image size of a data set, and how many training and validation images it has."""

    classes: int
    channels: int
    image_size: int
    images: int

    def counts(self) -> np.ndarray:
        """As many samples of each class, int64 (K,): the weights of a loss take the same memory whatever they are."""
        return np.full(self.classes, max(1, self.images // self.classes), np.int64)


def find_shape(cfg: DictConfig) -> Shape:
    """The shape of `cfg.data`: from the table of known data sets, or from the files where they decide.

    Raises:
        UserError: files are needed and are missing.
    """
    from src.datasets.spec import read

    channels, size = len(cfg.data.mean), int(cfg.data.image_size)
    if cfg.data.sizes:
        size = max(size, *cfg.data.sizes)
    try:
        spec = read(cfg.data.name)
    except ValueError:  # a mixture, shards: no published data set
        spec = None
    if spec and spec.classes and spec.splits and spec.splits.get("train"):
        classes = len(cfg.data.classes) if cfg.data.classes else spec.classes
        return Shape(classes, channels, size, spec.splits["train"])
    train, val = (build_dataset(cfg, name) for name in ("train", "val"))
    return Shape(len(train.classes), channels, size, len(train) + len(val))
