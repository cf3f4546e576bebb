"""Classification of a table's rows, whatever the framework: scores and pictures from NumPy logits."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.tabular import TableSplit, build_table_loader
from src.tasks import classification

MONITOR = "val/accuracy"
MODE = "max"
CONTENT = TableSplit.content
VALIDATION_LOSS = True  # predictions are what the loss takes

build_loader = build_table_loader
keep, metrics, evaluate = classification.keep, classification.metrics, classification.evaluate
Kept = classification.Kept


def classes(dataset: TableSplit) -> tuple[str, ...]:
    """What the network tells apart."""
    return dataset.classes


def image_shape(cfg: DictConfig, dataset: TableSplit) -> tuple[int, int, int]:
    """(1, 1, F): a row is like an image of one pixel with F channels."""
    return dataset.images.shape


def network_arguments(dataset: TableSplit) -> dict[str, Any]:
    """What the network must know of the data beside the number of classes and channels."""
    return {"cardinalities": dataset.preprocessing.cardinalities}


def metadata(dataset: TableSplit) -> dict[str, str]:
    """What model.safetensors keeps, so that new rows are encoded as the training rows were."""
    return {"preprocessing": dataset.preprocessing.to_json()}


def pictures(kept: Kept, dataset: TableSplit, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write the confusion matrix as `folder/prefix-confusion.png`."""
    from src.kit.report import draw_confusion

    outputs, targets = classification.join(kept)
    matrix = np.zeros((len(dataset.classes), len(dataset.classes)), np.int64)
    np.add.at(matrix, (targets, outputs.argmax(axis=1)), 1)
    return [draw_confusion(matrix, dataset.classes, folder / f"{prefix}-confusion.png")]


def draw_images(dataset: TableSplit, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the rows of these numbers as the network sees them."""
    from src.kit.tabular import draw_rows

    names = [dataset.classes[target] if dataset.classes else f"{target:.4g}" for target in dataset.targets[chosen]]
    return draw_rows(dataset.images.get(chosen)[:, 0, 0], dataset.preprocessing.names, names, path)
