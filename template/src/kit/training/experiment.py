"""One configuration's task, data, network and loss: built when first needed, then handed on."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError, load_component
from src.kit.loading import BatchLoader
from src.kit.training.losses import build_loss
from src.kit.training.networks import build_model
from src.kit.training.task import BaseTask, load_task


class Experiment:
    """Everything that a configuration stands for. Each split is built once, by whoever asks for it first."""

    def __init__(self, cfg: DictConfig, splits: Mapping[str, Any] | None = None) -> None:
        """`splits` are splits that have been built already, by name."""
        self.cfg = cfg
        self.splits: dict[str, Any] = dict(splits or {})

    @cached_property
    def task(self) -> BaseTask:
        """What the network learns."""
        return load_task(self.cfg.task)

    def split(self, name: str) -> Any:
        """The "train", "val" or "test" split.

        Raises:
            UserError: missing or damaged files, a split without samples, or data that are of no use for the task.
        """
        if name not in self.splits:
            dataset = build_dataset(self.cfg, name)
            self.check(dataset)
            self.splits[name] = dataset
        return self.splits[name]

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
        chosen = named_arguments(self.cfg.trainer.metrics)
        return {name: load_component("metric", name).build(**keys) for name, keys in chosen.items()}

    def score(self, collected: Sequence[Any]) -> dict[str, float]:
        """The scores computed after every epoch."""
        own = {name: float(metric(collected, self.classes)) for name, metric in self.metrics.items()}
        return self.task.metrics(collected, self.classes) | own

    def evaluate(self, collected: Sequence[Any]) -> dict[str, Any]:
        """The full evaluation, ready for JSON."""
        own = {name: float(metric(collected, self.classes)) for name, metric in self.metrics.items()}
        return self.task.evaluate(collected, self.classes) | own

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

    def build_network(self, initial: bool = True) -> Any:
        """Build `cfg.model` for the data's classes, channels and image size.

        `initial` applies `model.pretrained` and `model.weights`; without it the caller loads a checkpoint.
        """
        return build_network(self.cfg, self.classes, self.input_shape, self.network_arguments, initial)

    def build_loss(self) -> Callable[..., Any]:
        """Build `cfg.loss`: called with (outputs, *targets), it returns a scalar tensor."""
        return build_loss(self.cfg, self.split("train").class_counts())

    def build_loader(self, kind: str, rank: int = 0, world_size: int = 1, dataset: Any = None) -> BatchLoader:
        """Batches `(images, *targets)` of the split `kind`, or of `dataset` in its place."""
        dataset = self.split(kind) if dataset is None else dataset
        return self.task.build_loader(self.cfg, dataset, kind, rank, world_size)

    def metadata(self) -> dict[str, str]:
        """Metadata of model.safetensors: enough to use the weights without the run folder."""
        cfg, dataset = self.cfg, self.any_split()
        described = {
            "model": json.dumps(OmegaConf.to_container(cfg.model, resolve=True)),
            "framework": cfg.framework,
            "task": cfg.task,
            "classes": json.dumps(self.classes),
            "image_shape": json.dumps(self.input_shape),
        }
        scale = {key: json.dumps(list(cfg.data[key])) for key in ("mean", "std") if key in cfg.data}
        return described | scale | self.task.metadata(dataset)


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
    height, _, channels = input_shape
    network = build_model(cfg, len(classes), channels, height, **arguments)
    if (own := getattr(network, "takes_targets", False)) != (cfg.loss.name == "network"):
        fitting = "its own losses: set loss=network" if own else f"a loss: set another one than loss={cfg.loss.name}"
        raise UserError(f"model={cfg.model.name} learns by {fitting}.")
    return network


def named_arguments(chosen: Any) -> dict[str, dict[str, Any]]:
    """`["a"]` or `{"a": {"key": 1}}` -> name -> keyword arguments."""
    plain: Any = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    return {name: plain[name] or {} if isinstance(plain, dict) else {} for name in plain}
