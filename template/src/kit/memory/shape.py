"""What the network sees of a data set: enough to build it, without a single image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import build_dataset
from src.kit.training import tasks

# an image, where losses depend on them; batches are padded to their fullest image, and among 16 photos of COCO that has
# 22 in the median and 40 in one batch of ten
OBJECTS = 32
FEWER = {"digit_scenes": 6}
OF_OBJECTS = ("detection", "instance_segmentation")


@dataclass(frozen=True)
class Shape:
    """Classes, channels and image size of a data set, and how many training and validation images it has.

    `objects` is how many each image is taken to have, and `arguments` what the network is told beside the rest.
    """

    classes: int
    channels: int
    image_size: int
    images: int
    objects: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def counts(self) -> np.ndarray:
        """As many samples of each class, int64 (K,): the weights of a loss take the same memory whatever they are."""
        return np.full(self.classes, max(1, self.images // self.classes), np.int64)


def find_shape(cfg: DictConfig) -> Shape:
    """The shape of `cfg.data`: from the table of known data sets, or from the files where they decide.

    Raises:
        UserError: files are needed and are missing.
    """
    from src.kit.catalog import find_spec

    size = int(cfg.data.image_size) if "image_size" in cfg.data else 1
    if cfg.data.sizes:
        size = max(size, *cfg.data.sizes)
    objects = FEWER.get(cfg.data.name, OBJECTS) if cfg.task in OF_OBJECTS else 0
    try:
        spec = find_spec(cfg.data.name)
    except ValueError:  # a mixture, shards: no published data set
        spec = None
    if "mean" in cfg.data and spec and spec.classes and spec.splits and spec.splits.get("train"):
        # published scenes have outlines of objects, and what is around them is a class of its own
        classes = (len(cfg.data.classes) if cfg.data.classes else spec.classes) + (cfg.task == "segmentation")
        return Shape(classes, len(cfg.data.mean), size, spec.splits["train"], objects)
    train, val = (build_dataset(cfg, name) for name in ("train", "val"))
    task = tasks.load(cfg.task)
    arguments = task.network_arguments(train) if hasattr(task, "network_arguments") else {}
    channels = task.image_shape(cfg, train)[2]
    return Shape(len(task.classes(train)), channels, size, len(train) + len(val), objects, arguments)
