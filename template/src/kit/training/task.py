"""What a task must provide: `src/tasks/<name>.py` has a class `Task` that derives from `BaseTask`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from omegaconf import DictConfig

from src.kit.config import load_component
from src.kit.loading import BatchLoader


class Dataset(Protocol):
    """One split of a data set, as every task's data provide it."""

    content: ClassVar[str]  # what its samples hold, such as "one class for each image"; tasks compare it with theirs

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        ...

    def __len__(self) -> int: ...

    def class_counts(self) -> np.ndarray:
        """Samples or objects of each class, int64 (K,)."""
        ...


class BaseTask(ABC):
    """A task in NumPy, for both frameworks: targets, metrics and pictures; losses are files of their own."""

    monitor: ClassVar[str]  # the metric that chooses the best checkpoint, such as "val/accuracy"
    mode: ClassVar[Literal["max", "min"]] = "max"
    content: ClassVar[str]  # `content` of the data sets that it learns from
    extra_classes: ClassVar[int] = 0  # outputs besides the data set's own classes, such as a background
    has_validation_loss: ClassVar[bool] = True  # whether the loss takes what the network predicts

    def check(self, cfg: DictConfig, dataset: Any) -> None:  # noqa: B027 (most tasks have nothing to check)
        """Refuse data that lack what the task needs.

        Raises:
            UserError: says what is missing.
        """

    def classes(self, dataset: Any) -> tuple[str, ...]:
        """Names of the network's outputs."""
        names: tuple[str, ...] = dataset.classes
        return names

    @abstractmethod
    def input_shape(self, cfg: DictConfig, dataset: Any) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""

    def network_arguments(self, dataset: Any) -> dict[str, Any]:
        """Further arguments of the network's `build`."""
        return {}

    def metadata(self, dataset: Any) -> dict[str, str]:
        """What model.safetensors stores to prepare inputs as in training."""
        return {}

    @abstractmethod
    def build_loader(self, cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Batches `(images, *targets)`; `kind` is train (shuffled, augmented), val or test."""

    @abstractmethod
    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Sequence[Any]:
        """Reduce a batch's outputs and targets to what the metrics need."""

    @abstractmethod
    def metrics(self, collected: Sequence[Any], names: Sequence[str]) -> dict[str, float]:
        """The few scores computed after every epoch; `names` are `classes`."""

    @abstractmethod
    def evaluate(self, collected: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
        """The full evaluation, ready for JSON."""

    @abstractmethod
    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[Any]:
        """What a batch's outputs say of each image, ready for JSON."""

    @abstractmethod
    def draw_samples(self, dataset: Any, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        """Draw the samples with these indices and their targets."""

    @abstractmethod
    def draw_predictions(
        self, collected: Sequence[Any], dataset: Any, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write pictures of predictions as `folder/prefix-*.png`."""

    @abstractmethod
    def draw_batch(self, cfg: DictConfig, dataset: Any, split: str, path: Path, count: int) -> Path:
        """Draw up to `count` samples of the first batch as the network sees them.

        Raises:
            UserError: the data hold nothing to draw.
        """

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        """Made-up targets of a batch for estimates: class numbers int64 (B,); `shape` is a `kit.memory.DataShape`."""
        return (np.zeros(batch, np.int64),)

    def example_objects(self, cfg: DictConfig) -> int:
        """Objects that an image is assumed to have, for estimates."""
        return 0


def load_task(name: str) -> BaseTask:
    """The task `src/tasks/<name>.py`.

    Raises:
        UserError: there is no task of that name.
    """
    task: BaseTask = load_component("task", name).Task()
    return task
