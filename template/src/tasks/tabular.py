"""Classify the rows of a table. Scores and plots come from NumPy logits, whatever the framework."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.tabular import TableSplit, build_table_loader
from src.tasks import classification

MONITOR = "val/accuracy"
MODE = "max"
CONTENT = TableSplit.content
VALIDATION_LOSS = True  # the loss takes the predictions

build_loader = build_table_loader
keep, metrics, evaluate = classification.keep, classification.metrics, classification.evaluate
Kept = classification.Kept


def classes(dataset: TableSplit) -> tuple[str, ...]:
    """The class names."""
    return dataset.classes


def image_shape(cfg: DictConfig, dataset: TableSplit) -> tuple[int, int, int]:
    """(1, 1, F): a row counts as an image of one pixel with F channels."""
    return dataset.images.shape


def network_arguments(dataset: TableSplit) -> dict[str, Any]:
    """Arguments for the network besides the number of classes and channels."""
    return {"cardinalities": dataset.preprocessing.cardinalities}


def metadata(dataset: TableSplit) -> dict[str, str]:
    """Metadata for model.safetensors, so that new rows are encoded like the training rows."""
    return {"preprocessing": dataset.preprocessing.to_json()}


def pictures(kept: Kept, dataset: TableSplit, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write the confusion matrix to `folder/prefix-confusion.png`."""
    from src.kit.report import draw_confusion

    outputs, targets = classification.join(kept)
    matrix = np.zeros((len(dataset.classes), len(dataset.classes)), np.int64)
    np.add.at(matrix, (targets, outputs.argmax(axis=1)), 1)
    return [draw_confusion(matrix, dataset.classes, folder / f"{prefix}-confusion.png")]


def draw_images(dataset: TableSplit, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the rows at the indices `chosen` as the network sees them."""
    from src.kit.tabular import draw_rows

    names = [dataset.classes[target] if dataset.classes else f"{target:.4g}" for target in dataset.targets[chosen]]
    return draw_rows(dataset.images.get(chosen)[:, 0, 0], dataset.preprocessing.names, names, path)
