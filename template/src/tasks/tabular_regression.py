"""Prediction of a number from a table's row, whatever the framework: scores and pictures in the number's own unit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.tabular import TableSplit
from src.tasks import tabular
from src.tasks.classification import join

MONITOR = "val/rmse"
MODE = "min"
CONTENT = TableSplit.content
VALIDATION_LOSS = True  # predictions are what the loss takes

Kept = Sequence[tuple[np.ndarray, np.ndarray]]  # predicted and true float64 (B,) of each batch

build_loader, image_shape, draw_images = tabular.build_loader, tabular.image_shape, tabular.draw_images
network_arguments, metadata = tabular.network_arguments, tabular.metadata


def classes(dataset: TableSplit) -> tuple[str, ...]:
    """The name of the only output."""
    return (dataset.preprocessing.target,)


def keep(outputs: np.ndarray, targets: np.ndarray) -> Kept:
    """What the scores need of a batch's outputs (B, 1) and targets (B, 3): predicted and true, in the target's unit."""
    distance, mean, scale = targets.astype(np.float64).T
    return [(outputs[:, 0].astype(np.float64) * scale + mean, distance * scale + mean)]


def metrics(kept: Kept, names: Sequence[str]) -> dict[str, float]:
    """`rmse` and `mae`, the root mean squared and the mean absolute error, in the target's unit.

    `r2` is the part of the variance that is explained: 1 at best, 0 for always the mean, 0 where there is no variance.
    """
    predicted, true = join(kept)
    squared = float(((predicted - true) ** 2).mean())
    variance = float(true.var())
    return {
        "rmse": squared**0.5,
        "mae": float(np.abs(predicted - true).mean()),
        "r2": 1 - squared / variance if variance > 0 else 0.0,
    }


def evaluate(kept: Kept, names: Sequence[str]) -> dict[str, Any]:
    """The scores of `metrics` and the largest error, for JSON."""
    predicted, true = join(kept)
    return {**metrics(kept, names), "max_error": float(np.abs(predicted - true).max()), "samples": len(true)}


def pictures(kept: Kept, dataset: TableSplit, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write predicted against true numbers as `folder/prefix-predictions.png`."""
    from src.kit.tabular import draw_numbers

    predicted, true = join(kept)
    return [draw_numbers(predicted, true, dataset.preprocessing.target, folder / f"{prefix}-predictions.png")]
