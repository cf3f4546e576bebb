"""What a task is: its metrics and pictures, one neutral module per task, and its losses, one module per framework."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from src.utils.registry import resolve

TASKS = {"classification": "src.tasks.classification"}


def load(name: str) -> ModuleType:
    """Return the neutral module of a task: `MONITOR`, `MODE`, `metrics`, `evaluate` and `pictures`.

    Raises:
        UserError: there is no task of that name.
    """
    module: ModuleType = resolve(TASKS, name, "task")
    return module


def load_loss(cfg: DictConfig) -> Callable[[Any, Any], Any]:
    """Return the loss `cfg.loss.name` in `cfg.framework`: called with (logits, targets), it gives a scalar tensor.

    Raises:
        UserError: there is no loss of that name.
    """
    losses = import_module(f"src.tasks.{cfg.framework}").LOSSES
    loss: Callable[[Any, Any], Any] = resolve(losses, cfg.loss.name, "loss")(cfg)
    return loss
