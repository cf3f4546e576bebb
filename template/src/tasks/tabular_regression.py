"""Prediction of a number from a table's row, whatever the framework: scores and pictures in the number's own unit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.tasks import tabular
from src.tasks.classification import Collected, concatenate


class Task(tabular.Task):
    """One number for each row; predicted and true numbers are float64 (B,)."""

    monitor = "val/rmse"
    mode = "min"
    fitted: Any = None  # the data's preprocessing, which restores the unit

    def check(self, cfg: DictConfig, dataset: Any) -> None:
        self.fitted = dataset.preprocessing

    def classes(self, dataset: Any) -> tuple[str, ...]:
        """The name of the only output."""
        return (dataset.preprocessing.target,)

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Collected:
        """Predicted and true numbers in the target's unit, from outputs (B, 1) and targets (B, 3)."""
        distance, mean, scale = targets[0].astype(np.float64).T
        if self.fitted:
            return [(self.fitted.decode(outputs[:, 0]), self.fitted.decode(distance))]
        return [(outputs[:, 0].astype(np.float64) * scale + mean, distance * scale + mean)]

    def metrics(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """`rmse` and `mae`, the root mean squared and the mean absolute error, in the target's unit; and `r2`.

        `r2` is the share of the variance that is explained: 1 at best, 0 for predicting the mean or without variance.
        """
        predicted, true = concatenate(collected)
        squared = float(((predicted - true) ** 2).mean())
        variance = float(true.var())
        return {
            "rmse": squared**0.5,
            "mae": float(np.abs(predicted - true).mean()),
            "r2": 1 - squared / variance if variance > 0 else 0.0,
        }

    def evaluate(self, collected: Collected, names: Sequence[str]) -> dict[str, Any]:
        """The scores of `metrics` and the largest error, for JSON."""
        predicted, true = concatenate(collected)
        largest = float(np.abs(predicted - true).max())
        return {**self.metrics(collected, names), "max_error": largest, "samples": len(true)}

    def sample_rows(self, collected: Collected, names: Sequence[str]) -> list[dict[str, Any]]:
        """The true and the predicted number."""
        predicted, true = concatenate(collected)
        return [{"true": float(a), "predicted": float(b)} for a, b in zip(true, predicted, strict=True)]

    def describe(self, cfg: DictConfig, dataset: Any) -> dict[str, Any]:
        fitted = dataset.preprocessing
        unit = {"mean": fitted.target_mean, "scale": fitted.target_scale, "transform": fitted.target_transform}
        return {**super().describe(cfg, dataset), "output": {"kind": "number", **unit}}

    def baseline(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """Always answering the mean."""
        return {"r2": 0.0}

    def draw_predictions(
        self, collected: Collected, dataset: Any, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Draw predicted against true numbers as `folder/prefix-predictions.png`."""
        from src.kit.tabular import draw_numbers

        predicted, true = concatenate(collected)
        return [draw_numbers(predicted, true, dataset.preprocessing.target, folder / f"{prefix}-predictions.png")]

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        return (np.zeros((batch, 3), np.float32),)
