"""What a network sees of a data set: its sizes, and made-up targets. No image is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from src.kit.training import Experiment, load_task


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


def find_data_shape(experiment: Experiment) -> DataShape:
    """The shape of an experiment's data: from its published description, or from its files where they decide.

    Raises:
        UserError: files are needed and are missing.
    """
    from src.kit.catalog import find_spec

    cfg, task = experiment.cfg, experiment.task
    size = int(cfg.data.image_size) if "image_size" in cfg.data else 1
    if cfg.data.sizes:
        size = max(size, *cfg.data.sizes)
    objects = task.example_objects(cfg)
    try:
        spec = find_spec(cfg.data.name)
    except ValueError:  # a mixture, say: no published data set
        spec = None
    if "mean" in cfg.data and spec and spec.classes and spec.splits and spec.splits.get("train"):
        classes = (len(cfg.data.classes) if cfg.data.classes else spec.classes) + task.extra_classes
        return DataShape(classes, len(cfg.data.mean), size, spec.splits["train"], objects)
    images = len(experiment.split("train")) + len(experiment.split("val"))
    channels = experiment.input_shape[2]
    return DataShape(len(experiment.classes), channels, size, images, objects, experiment.network_arguments)


def example_targets(task: str, shape: DataShape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays that `task` passes to a loss besides the outputs: made up, `batch` equal rows."""
    return load_task(task).example_targets(shape, batch)
