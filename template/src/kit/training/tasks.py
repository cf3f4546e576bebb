"""Tasks: one neutral module each, with its metrics and pictures, found by name."""

from types import ModuleType
from typing import Any

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


def load(name: str) -> ModuleType:
    """Return the neutral module of a task: `MONITOR`, `MODE`, `metrics`, `evaluate` and `pictures`.

    Raises:
        UserError: there is no task of that name.
    """
    module: ModuleType = resolve(TASKS, name, "task")
    return module


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
