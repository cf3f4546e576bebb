"""Loader and network as the configuration asks for them, for both backends and every task."""

import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import Loader
from src.kit.training import tasks
from src.kit.training.networks import build_model


def build_loader(cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
    """Batches `(images, *arrays)`; `kind` is train (shuffled, augmented), val or test; `rank` one of `world_size`."""
    loader: Loader = tasks.load(cfg.task).build_loader(cfg, dataset, kind, rank, world_size)
    return loader


def build_network(cfg: DictConfig, dataset: Any, initial: bool = True) -> Any:
    """Build `cfg.model` for the data set's classes, channels and image size.

    `initial` applies `model.pretrained` and `model.weights`; without it the caller loads a checkpoint.
    """
    if not initial:
        cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    task = tasks.load(cfg.task)
    height, _, channels = task.image_shape(cfg, dataset)
    extra = task.network_arguments(dataset) if hasattr(task, "network_arguments") else {}
    network = build_model(cfg, len(task.classes(dataset)), channels, height, **extra)
    if (own := getattr(network, "takes_targets", False)) != (cfg.loss.name == "network"):
        fitting = "its own losses: set loss=network" if own else f"a loss: set another one than loss={cfg.loss.name}"
        raise UserError(f"model={cfg.model.name} learns by {fitting}.")
    return network


def describe_network(cfg: DictConfig, dataset: Any) -> dict[str, str]:
    """Metadata of model.safetensors: enough to use the weights without the run folder."""
    task = tasks.load(cfg.task)
    described = {
        "model": json.dumps(OmegaConf.to_container(cfg.model, resolve=True)),
        "framework": cfg.framework,
        "task": cfg.task,
        "classes": json.dumps(task.classes(dataset)),
        "image_shape": json.dumps(task.image_shape(cfg, dataset)),
    }
    # how the inputs were made: of images their normalisation
    scale = {key: json.dumps(list(cfg.data[key])) for key in ("mean", "std") if key in cfg.data}
    return described | scale | (task.metadata(dataset) if hasattr(task, "metadata") else {})
