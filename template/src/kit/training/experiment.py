"""A task's interface, and the experiment: one configuration's task, data, network and loss, built once and handed on.

`src/tasks/<name>.py` has a class `Task` that derives from `BaseTask`."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError, find_component, load_component, returned, shown_config, signature
from src.kit.inference import Card
from src.kit.loading import BatchLoader, reading_of
from src.kit.training.networks import build_loss, build_model, recompute, weights_origin


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
    threshold: float | None = None  # the least score of what is reported, if the validation split has chosen one

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

    def class_counts(self, cfg: DictConfig, dataset: Any) -> np.ndarray | None:
        """How often each class occurs in the training split, int64 (K,), for the weights of the loss."""
        counts: np.ndarray = dataset.class_counts()
        return counts

    def network_arguments(self, dataset: Any) -> dict[str, Any]:
        """Further arguments of the network's `build`."""
        return {}

    def metadata(self, dataset: Any) -> dict[str, str]:
        """What model.safetensors stores to prepare inputs as in training."""
        return {}

    @abstractmethod
    def build_loader(self, cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> BatchLoader:
        """Batches `(images, *targets)`; `kind` is train (shuffled, augmented), val or test."""

    def in_order(self, cfg: DictConfig, dataset: Any) -> Any:
        """A split in the order in which its batches are evaluated."""
        return dataset

    @abstractmethod
    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Sequence[Any]:
        """Reduce a batch's outputs and targets to what the metrics need."""

    @abstractmethod
    def metrics(self, collected: Sequence[Any], names: Sequence[str]) -> dict[str, float]:
        """The few scores computed after every epoch; `names` are `classes`."""

    @abstractmethod
    def evaluate(self, collected: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
        """The full evaluation, ready for JSON."""

    def examine(
        self, experiment: "Experiment", split: str, predict: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, Any]:
        """More of an evaluation, for JSON, that needs the network or other models.

        Args:
            predict: the network: inputs of a batch -> outputs.

        Returns:
            beside: another model's name -> its scores; importance: an input's name -> what the score loses without it.
        """
        return {}

    def baseline(self, collected: Sequence[Any], names: Sequence[str]) -> dict[str, float]:
        """Scores, of which more is better, of the best answer that ignores the input: no network should stay there."""
        return {}

    def original_scores(
        self, cfg: DictConfig, collected: Sequence[Any], names: Sequence[str], dataset: Any
    ) -> dict[str, Any]:
        """Further scores of the full evaluation that need the data set, in whose order `collected` is."""
        return {}

    @abstractmethod
    def describe(self, cfg: DictConfig, dataset: Any) -> dict[str, Any]:
        """`kind`, `input` and `output` of the network's card: how data are prepared and what outputs mean."""

    def sample_rows(self, collected: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any]]:
        """The truth and the prediction of each sample, in their order, for predictions-<split>.csv; none by default."""
        return []

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


class Experiment:
    """Everything that a configuration stands for. Each split is built once, by whoever asks for it first."""

    def __init__(self, cfg: DictConfig, splits: Mapping[str, Any] | None = None) -> None:
        """`splits` are splits that have been built already, by name."""
        self.cfg = cfg
        self.splits: dict[str, Any] = dict(splits or {})
        self.schedule: Any = None  # of the learning rate, in place of `cfg.scheduler`
        self.notes: list[str] = []  # what the run's log should say about the data

    @cached_property
    def task(self) -> BaseTask:
        """What the network learns."""
        return load_task(self.cfg.task)

    def split(self, name: str) -> Any:
        """The "train", "val" or "test" split.

        Raises:
            UserError: missing or damaged files, a split without samples, or data that are of no use for the task.
        """
        if name == "val" and self.cfg.trainer.overfit_batches:
            name = "train"
        if name not in self.splits:
            dataset = build_dataset(self.cfg, name, self.notes)
            self.check(dataset)
            self.splits[name] = dataset
            self.keep_range(dataset)
        return self.splits[name]

    def evaluated(self, name: str) -> Any:
        """A split in the order of what is collected when it is evaluated; raises what `split` does."""
        return self.task.in_order(self.cfg, self.split(name))

    def keep_range(self, dataset: Any) -> None:
        """Write the range that the training split chose into the configuration, and so into the run's folder."""
        reading = reading_of(dataset)
        if reading and self.cfg.data.get("range") == "auto":
            chosen = reading["range"] or "file"
            self.cfg = OmegaConf.merge(self.cfg, {"data": {"range": chosen}})
            if chosen != "file":
                self.notes.append(f"Images of more than 8 bits: {chosen} becomes black and white (data.range).")

    def check(self, dataset: Any) -> None:
        """Refuse a data set, a model or a loss that is for other tasks.

        Raises:
            UserError: names both.
        """
        cfg = self.cfg
        for group in ("model", "loss"):
            fitting = cfg[group].get("tasks") or [cfg.task]  # your own may leave the key out
            if cfg.task not in fitting:
                raise UserError(
                    f"{group}={cfg[group].name} is for task={' or '.join(fitting)}, and the task is {cfg.task}: "
                    f"choose another {group} or task."
                )
        if dataset.content != self.task.content:
            raise UserError(
                f"task={cfg.task} learns from {self.task.content}, and data={cfg.data.name} has {dataset.content}: "
                "choose another data set or task."
            )
        self.task.check(cfg, dataset)

    @cached_property
    def metrics(self) -> dict[str, Callable[..., float]]:
        """Your own metrics: `trainer.metrics`, each called with (what the task collected, class names)."""
        return build_named("metric", self.cfg.trainer.metrics)

    def score(self, collected: Sequence[Any]) -> dict[str, float]:
        """The scores computed after every epoch."""
        own = {name: float(metric(collected, self.classes)) for name, metric in self.metrics.items()}
        return self.task.metrics(collected, self.classes) | own

    def evaluate(self, collected: Sequence[Any], split: str) -> dict[str, Any]:
        """The full evaluation of what was collected on a split, ready for JSON."""
        own = {name: float(metric(collected, self.classes)) for name, metric in self.metrics.items()}
        baseline = self.task.baseline(collected, self.classes)
        known = {f"baseline_{name}": value for name, value in baseline.items()}
        original = self.task.original_scores(self.cfg, collected, self.classes, self.evaluated(split))
        return self.task.evaluate(collected, self.classes) | original | known | own

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs."""
        return self.task.classes(self.any_split())

    @cached_property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""
        return self.task.input_shape(self.cfg, self.any_split())

    @cached_property
    def network_arguments(self) -> dict[str, Any]:
        """Further arguments of the network's `build`, which the task knows from its data."""
        return self.task.network_arguments(self.any_split())

    def any_split(self) -> Any:
        """A split that has been built already, or else the training split."""
        return next(iter(self.splits.values())) if self.splits else self.split("train")

    def build_network(self, initial: bool = True, checkpoint: Path | None = None) -> Any:
        """Build `cfg.model` for the data's classes, channels and image size.

        `initial` applies `model.pretrained` and `model.weights`, or takes the weights of the `checkpoint` folder to
        continue from in place of these; without it the caller loads a checkpoint.
        """
        cfg = self.cfg
        if checkpoint and (cfg.model.get("pretrained") or cfg.model.get("weights")):
            start = {"pretrained": False, "weights": str(checkpoint / "model.safetensors")}
            cfg = OmegaConf.merge(cfg, {"model": start})
        network = build_network(cfg, self.classes, self.input_shape, self.network_arguments, initial)
        if initial and cfg.trainer.gradient_checkpointing:
            recompute(cfg, network)
        return network

    @cached_property
    def class_counts(self) -> np.ndarray | None:
        """How often each class occurs in the training split, as the task counts it."""
        return self.task.class_counts(self.cfg, self.split("train"))

    def build_loss(self) -> Callable[..., Any]:
        """Build `cfg.loss`: called with (outputs, *targets), it returns a scalar tensor."""
        return build_loss(self.cfg, self.class_counts)

    def build_loader(self, kind: str, rank: int = 0, world_size: int = 1, dataset: Any = None) -> BatchLoader:
        """Batches `(images, *targets)` of the split `kind`, or of `dataset` in its place."""
        dataset = self.split(kind) if dataset is None else dataset
        if self.cfg.trainer.overfit_batches and kind in ("train", "val"):
            return SameOrder(self.task.build_loader(self.cfg, dataset, "train", rank, world_size))
        return self.task.build_loader(self.cfg, dataset, kind, rank, world_size)

    @classmethod
    def from_card(cls, cfg: DictConfig, card: Card) -> "Experiment":
        """An experiment that builds its network without its data, of which the card says enough."""
        experiment = cls(cfg)
        channels, height, width = card.input["shape"] if len(card.input["shape"]) == 3 else (*card.input["shape"], 1, 1)
        # as if these properties had been computed already
        vars(experiment).update(
            classes=card.classes, input_shape=(height, width, channels), network_arguments=dict(card.network)
        )
        return experiment

    def card(self, **more: Any) -> Card:
        """The card of the network; `more` are fields that are known after an evaluation."""
        cfg = self.cfg
        described = self.task.describe(cfg, self.any_split())
        network = {"model": cfg.model.name, "framework": cfg.framework, "network": self.network_arguments}
        weights = {**self.origin, **more.pop("weights", {})}
        return Card(task=cfg.task, classes=tuple(self.classes), weights=weights, **described, **network, **more)

    @cached_property
    def origin(self) -> dict[str, str | None]:
        """Where the network's first weights came from, `started_from`, and their `licence`, as far as it is known."""
        return weights_origin(self.cfg)

    def metadata(self, network: Any) -> dict[str, str]:
        """Metadata of model.safetensors: enough to use the weights of `network` without the run folder."""
        cfg, dataset = self.cfg, self.any_split()
        described = {
            "model": json.dumps(shown_config(cfg)["model"]),
            "framework": cfg.framework,
            "task": cfg.task,
            "classes": json.dumps(self.classes),
            "image_shape": json.dumps(self.input_shape),
        }
        scale = {key: json.dumps(list(cfg.data[key])) for key in ("mean", "std") if key in cfg.data}
        if hasattr(network, "compression"):  # whose layers are smaller than the configuration says
            described["compression"] = network.compression
        return described | scale | self.task.metadata(dataset) | {"card": self.card().to_json()}


class SameOrder:
    """A loader of training batches whose every epoch is the first one."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader, self.samples, self.epoch = loader, loader.samples, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        return iter(self.loader)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Begin the first epoch again, at a batch."""
        self.epoch = epoch
        self.loader.set_epoch(0, first_batch)

    def position(self, batch: int) -> list[Any]:
        """As the loader tells it."""
        return self.loader.position(batch)

    def resume(self, epoch: int, parts: Sequence[Any]) -> int:
        """Go on within the first epoch."""
        self.epoch = epoch
        return self.loader.resume(0, parts)

    def weight(self, number: int) -> float:
        """That of the batch of the first epoch."""
        return self.loader.weight(number)


def build_network(
    cfg: DictConfig,
    classes: tuple[str, ...],
    input_shape: tuple[int, int, int],
    arguments: dict[str, Any],
    initial: bool = True,
) -> Any:
    """Build `cfg.model`: float32 (B, C, H, W) -> the task's outputs.

    Raises:
        UserError: an impossible argument, or a loss that does not fit the network.
    """
    if not initial:
        cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    if "class_names" in cfg.model and cfg.model.class_names is None:  # of a network that reads them
        cfg = OmegaConf.merge(cfg, {"model": {"class_names": list(classes)}})
    height, _, channels = input_shape
    network = build_model(cfg, len(classes), channels, height, **arguments)
    if (own := getattr(network, "takes_targets", False)) != (cfg.loss.name == "network"):
        fitting = "its own losses: set loss=network" if own else f"a loss: set another one than loss={cfg.loss.name}"
        raise UserError(f"model={cfg.model.name} learns by {fitting}.")
    if not initial and hasattr(network, "register_load_state_dict_pre_hook"):  # PyTorch's, for `load_from_checkpoint`
        import_module("src.kit.lightning").follow_state(network)
    return network


def build_named(group: str, chosen: Any, framework: str = "") -> dict[str, Any]:
    """Name -> what the `build` of a component of `group` returns; `chosen` is `["a"]` or `{"a": {"key": 1}}`.

    Raises:
        UserError: there is no such file, or its `build` has no such key or lacks one.
    """
    plain: Any = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    built = {}
    for name in plain:
        keys = (plain[name] or {}) if isinstance(plain, dict) else {}
        component, path = load_component(group, str(name), framework), find_component(group, str(name), framework)
        known = signature(path) if path else {}
        needed = {key for key, argument in known.items() if argument.default is ...}
        if not isinstance(keys, dict) or not needed <= set(keys) <= set(known):
            raise UserError(f"trainer.{group}s: {name} takes {', '.join(known) or 'no keys'}, not {keys!r}.")
        built[str(name)] = returned(component.build(**keys), f"trainer.{group}s={name}")
    return built
