"""Predict a number from a row of a table. Scores and plots are in the number's own unit, whatever the framework."""

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
VALIDATION_LOSS = True  # the loss takes the predictions

Kept = Sequence[tuple[np.ndarray, np.ndarray]]  # predicted and true float64 (B,) of each batch

build_loader, image_shape, draw_images = tabular.build_loader, tabular.image_shape, tabular.draw_images
network_arguments, metadata = tabular.network_arguments, tabular.metadata


def classes(dataset: TableSplit) -> tuple[str, ...]:
    """The name of the only output, the target column."""
    return (dataset.preprocessing.target,)


def keep(outputs: np.ndarray, targets: np.ndarray) -> Kept:
    """Convert a batch's outputs (B, 1) and targets (B, 3) to predicted and true numbers in the target's unit."""
    distance, mean, scale = targets.astype(np.float64).T
    return [(outputs[:, 0].astype(np.float64) * scale + mean, distance * scale + mean)]


def metrics(kept: Kept, names: Sequence[str]) -> dict[str, float]:
    """Root mean squared error `rmse` and mean absolute error `mae` in the target's unit, and `r2`.

    `r2` is the share of the variance explained: 1 at best, 0 for always predicting the mean or without variance.
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
    """The scores of `metrics` and the largest absolute error, for JSON."""
    predicted, true = join(kept)
    return {**metrics(kept, names), "max_error": float(np.abs(predicted - true).max()), "samples": len(true)}


def pictures(kept: Kept, dataset: TableSplit, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Plot predicted against true numbers to `folder/prefix-predictions.png`."""
    from src.kit.tabular import draw_numbers

    predicted, true = join(kept)
    return [draw_numbers(predicted, true, dataset.preprocessing.target, folder / f"{prefix}-predictions.png")]
