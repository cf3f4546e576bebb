"""Image classification, whatever the framework: metrics and pictures from NumPy logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import Split, build_image_loader

MONITOR = "val/accuracy"
MODE = "max"
CONTENT = Split.content
VALIDATION_LOSS = True  # predictions are what the loss takes
SHOWN = 24  # pictures in the grid of sample predictions

build_loader = build_image_loader
Kept = Sequence[tuple[np.ndarray, np.ndarray]]  # logits (B, K) and class indices (B,) of each batch


def classes(dataset: Split) -> tuple[str, ...]:
    """What the network tells apart."""
    return dataset.classes


def image_shape(cfg: DictConfig, dataset: Split) -> tuple[int, int, int]:
    """Height, width and channels of the network's input."""
    return dataset.images.shape


def keep(outputs: np.ndarray, targets: np.ndarray) -> Kept:
    """What the metrics need of a batch: all of its logits (B, K) and class indices (B,)."""
    return [(outputs, targets)]


def join(kept: Kept) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and class indices (N,) of all batches."""
    outputs, targets = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    assert len(outputs) == len(targets) > 0, f"{len(outputs)} outputs for {len(targets)} targets"
    return outputs, targets


def metrics(kept: Kept, names: Sequence[str]) -> dict[str, float]:
    """Return what is computed after every epoch: the accuracy in [0, 1]."""
    outputs, targets = join(kept)
    return {"accuracy": float((outputs.argmax(axis=1) == targets).mean())}


def evaluate(kept: Kept, names: Sequence[str]) -> dict[str, Any]:
    """Return the full evaluation, ready for JSON.

    Macro averages run over the classes that occur in the targets or the predictions, as scikit-learn's do: a class
    that a small sample never shows doesn't pull them down. A ratio of nothing to nothing counts as 0.

    Returns:
        accuracy, top5_accuracy (more than five classes), {precision,recall,f1}_{macro,weighted}, samples, classes,
        per_class (one row a class) and confusion_matrix (K x K counts; rows: true, columns: predicted).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    outputs, targets = join(kept)
    labels = np.arange(len(names))
    predicted = outputs.argmax(axis=1)
    matrix = confusion_matrix(targets, predicted, labels=labels)
    *scores, support = precision_recall_fscore_support(targets, predicted, labels=labels, zero_division=0)
    seen = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    result: dict[str, Any] = metrics(kept, names)
    if len(names) > 5:
        five = np.argpartition(outputs, -5, axis=1)[:, -5:]  # (N, 5), in no order
        result["top5_accuracy"] = float((five == targets[:, None]).any(axis=1).mean())
    for name, values in zip(("precision", "recall", "f1"), scores, strict=True):
        result[f"{name}_macro"] = float(values[seen].mean())
        result[f"{name}_weighted"] = float(np.average(values, weights=support))
    rows = zip(names, *(values.tolist() for values in scores), support.tolist(), strict=True)
    columns = ("class", "precision", "recall", "f1", "samples")
    return {
        **result,
        "samples": len(targets),
        "classes": list(names),
        "per_class": [dict(zip(columns, row, strict=True)) for row in rows],
        "confusion_matrix": matrix.tolist(),
    }


def pictures(kept: Kept, split: Split, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write the confusion matrix and sample predictions as `folder/prefix-{confusion,samples}.png`.

    Row i of the logits (N, K) belongs to image i of the split; N may be smaller than the split.
    """
    from src.kit.report import draw_confusion, draw_predictions

    outputs, targets = join(kept)
    predicted = outputs.argmax(axis=1)
    matrix = np.zeros((len(split.classes), len(split.classes)), dtype=np.int64)
    np.add.at(matrix, (targets, predicted), 1)
    confidence = softmax(outputs).max(axis=1)
    chosen = choose_samples(confidence, predicted == targets, SHOWN)
    return [
        draw_confusion(matrix, split.classes, folder / f"{prefix}-confusion.png"),
        draw_predictions(
            split.images.get(chosen),
            [split.classes[index] for index in targets[chosen]],
            [split.classes[index] for index in predicted[chosen]],
            confidence[chosen],
            folder / f"{prefix}-samples.png",
        ),
    ]


def draw_images(split: Split, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the images of these numbers with their classes."""
    from src.kit.report import draw_images as draw

    return draw(split.images.get(chosen), [split.classes[target] for target in split.targets[chosen]], path)


def choose_samples(confidence: np.ndarray, correct: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` indices: mistakes first, the surest first, then right answers, the least sure first."""
    order = np.lexsort((np.where(correct, confidence, -confidence), correct))
    return order[:count]


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Turn logits (N, K) into probabilities that sum to 1 along each row."""
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
