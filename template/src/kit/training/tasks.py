"""What a task is: its metrics and pictures, one neutral module per task, and its losses, one module per framework."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError, resolve

TASKS = {
    "classification": "src.tasks.classification",
    "detection": "src.tasks.detection",
    "segmentation": "src.tasks.segmentation",
    "instance_segmentation": "src.tasks.instance_segmentation",
    "tabular": "src.tasks.tabular",
    "tabular_regression": "src.tasks.tabular_regression",
}

LOSSES = {
    "lightning": {
        "cross_entropy": "src.tasks.losses.lightning.cross_entropy:build_loss",
        "focal": "src.tasks.losses.lightning.cross_entropy:build_loss",
        "boxes": "src.tasks.losses.lightning.detection.boxes:build_loss",
        "pixels": "src.tasks.losses.lightning.segmentation.pixels:build_loss",
        "network": "src.kit.training.network_loss:build_loss",
        "mse": "src.tasks.losses.lightning.tabular.mse:build_loss",
    },
    "paddle": {
        "cross_entropy": "src.tasks.losses.paddle.cross_entropy:build_loss",
        "focal": "src.tasks.losses.paddle.cross_entropy:build_loss",
        "boxes": "src.tasks.losses.paddle.detection.boxes:build_loss",
        "pixels": "src.tasks.losses.paddle.segmentation.pixels:build_loss",
        "network": "src.kit.training.network_loss:build_loss",
        "mse": "src.tasks.losses.paddle.tabular.mse:build_loss",
    },
}


def load(name: str) -> ModuleType:
    """Return the neutral module of a task: `MONITOR`, `MODE`, `metrics`, `evaluate` and `pictures`.

    Raises:
        UserError: there is no task of that name.
    """
    module: ModuleType = resolve(TASKS, name, "task")
    return module


def load_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[[Any, Any], Any]:
    """Return the loss `cfg.loss.name` in `cfg.framework`: called with (logits, targets), it gives a scalar tensor.

    `class_counts` int64 (K,) are the training samples of each class, which `cfg.loss.class_weights` weighs.

    Raises:
        UserError: there is no loss of that name.
    """
    losses = LOSSES[cfg.framework]
    loss: Callable[[Any, Any], Any] = resolve(losses, cfg.loss.name, "loss")(cfg, class_counts)
    return loss


def check_data(cfg: DictConfig, dataset: Any) -> None:
    """Refuse a data set of another kind than `cfg.task` learns from, and a model or a loss that is for other tasks.

    Raises:
        UserError: names both.
    """
    for group in ("model", "loss"):
        fitting = cfg[group].get("tasks") or [cfg.task]  # your own may leave the key out
        if cfg.task not in fitting:
            raise UserError(
                f"{group}={cfg[group].name} is for task={' or '.join(fitting)}, and the task is {cfg.task}: "
                f"choose another {group} or task."
            )
    task = load(cfg.task)
    if dataset.content != task.CONTENT:
        raise UserError(
            f"task={cfg.task} learns from {task.CONTENT}, and data={cfg.data.name} has {dataset.content}: choose "
            "another data set or task."
        )
    if hasattr(task, "check"):
        task.check(cfg, dataset)
