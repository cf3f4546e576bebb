"""What a network sees of a data set: its sizes, and made-up targets. No image is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import build_dataset
from src.kit.config import resolve
from src.kit.training import tasks

# These tables belong to the tasks, as methods `example_targets(shape, batch)` and `example_objects(cfg)`. A task that
# is not listed learns one class number for each sample.
EXAMPLE_TARGETS = {
    "detection": "src.kit.scenes.examples:example_targets_boxes",
    "instance_segmentation": "src.kit.scenes.examples:example_targets_masks",
    "segmentation": "src.kit.scenes.examples:example_targets_class_map",
    "tabular_regression": "src.kit.memory.inputs:example_targets_number",
}
EXAMPLE_OBJECTS = dict.fromkeys(("detection", "instance_segmentation"), "src.kit.scenes.examples:example_objects")
EXTRA_CLASSES = {"segmentation": 1}  # the background


@dataclass(frozen=True)
class DataShape:
    """Number of classes, channels, pixels a side, and training (where unknown: all) images of a data set.

    `objects` is how many objects each image is assumed to have (0: the task has none), and `arguments` are further
    arguments of the network.
    """

    classes: int
    channels: int
    image_size: int
    images: int
    objects: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def class_counts(self) -> np.ndarray:
        """Equally many samples of each class, int64 (K,): a loss's weights take the same memory whatever they are."""
        return np.full(self.classes, max(1, self.images // self.classes), np.int64)


def find_data_shape(cfg: DictConfig) -> DataShape:
    """The shape of `cfg.data`: from its published description, or from its files where they decide.

    Raises:
        UserError: files are needed and are missing.
    """
    from src.kit.catalog import read

    size = int(cfg.data.image_size) if "image_size" in cfg.data else 1
    if cfg.data.sizes:
        size = max(size, *cfg.data.sizes)
    objects = resolve(EXAMPLE_OBJECTS, cfg.task, "task")(cfg) if cfg.task in EXAMPLE_OBJECTS else 0
    try:
        spec = read(cfg.data.name)
    except ValueError:  # a mixture, shards: no published data set
        spec = None
    if "mean" in cfg.data and spec and spec.classes and spec.splits and spec.splits.get("train"):
        classes = (len(cfg.data.classes) if cfg.data.classes else spec.classes) + EXTRA_CLASSES.get(cfg.task, 0)
        return DataShape(classes, len(cfg.data.mean), size, spec.splits["train"], objects)
    train, val = (build_dataset(cfg, name) for name in ("train", "val"))
    task = tasks.load(cfg.task)
    arguments = task.network_arguments(train) if hasattr(task, "network_arguments") else {}
    channels = task.image_shape(cfg, train)[2]
    return DataShape(len(task.classes(train)), channels, size, len(train) + len(val), objects, arguments)


def example_targets(task: str, shape: DataShape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays that `task` passes to a loss besides the outputs: made up, `batch` equal rows."""
    build: Callable[[DataShape, int], tuple[np.ndarray, ...]] = example_targets_class
    if task in EXAMPLE_TARGETS:
        build = resolve(EXAMPLE_TARGETS, task, "task")
    return build(shape, batch)


def example_targets_class(shape: DataShape, batch: int) -> tuple[np.ndarray, ...]:
    """Class numbers int64 (N,)."""
    return (np.zeros(batch, np.int64),)


def example_targets_number(shape: DataShape, batch: int) -> tuple[np.ndarray, ...]:
    """float32 (N, 3): the scaled number, and the mean and scale it was scaled with."""
    return (np.zeros((batch, 3), np.float32),)
