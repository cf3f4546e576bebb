"""Image classification, whatever the framework: metrics and pictures from NumPy logits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.inference import softmax
from src.kit.loading import Loader, Split, build_image_loader, reading_of
from src.kit.report import draw_image_batch
from src.kit.training import BaseTask

SHOWN = 24  # pictures in the grid of sample predictions

Collected = Sequence[tuple[np.ndarray, np.ndarray]]  # logits (B, K) and class indices (B,) of each batch


class Task(BaseTask):
    """One class for each image."""

    monitor = "val/accuracy"
    content = Split.content

    def input_shape(self, cfg: DictConfig, dataset: Split) -> tuple[int, int, int]:
        return dataset.images.shape

    def build_loader(self, cfg: DictConfig, dataset: Split, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
        return build_image_loader(cfg, dataset, kind, rank, world_size)

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Collected:
        """All of a batch's logits (B, K) and class indices (B,)."""
        return [(outputs, targets[0])]

    def metrics(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """The accuracy in [0, 1]."""
        outputs, targets = concatenate(collected)
        return {"accuracy": float((outputs.argmax(axis=1) == targets).mean())}

    def evaluate(self, collected: Collected, names: Sequence[str]) -> dict[str, Any]:
        """Return the full evaluation, ready for JSON.

        Macro averages run over the classes that occur in the targets or the predictions, as scikit-learn's do: a class
        that a small sample never shows doesn't pull them down. A ratio of nothing to nothing counts as 0.

        Returns:
            accuracy, top5_accuracy (more than five classes), {precision,recall,f1}_{macro,weighted}, samples, classes,
            per_class (one row a class) and confusion_matrix (K x K counts; rows: true, columns: predicted).
        """
        outputs, targets = concatenate(collected)
        matrix = count_pairs(targets, outputs.argmax(axis=1), len(names))
        right, support, answers = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        seen = (support + answers) > 0
        scores = [right / np.maximum(divisor, 1) for divisor in (answers, support, (answers + support) / 2)]
        result: dict[str, Any] = self.metrics(collected, names)
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

    def sample_rows(self, collected: Collected, names: Sequence[str]) -> list[dict[str, Any]]:
        """The true and the predicted class, and the probability of the latter."""
        outputs, targets = concatenate(collected)
        best = zip(targets, outputs.argmax(axis=1), softmax(outputs).max(axis=1), strict=True)
        return [{"true": names[true], "predicted": names[k], "score": float(score)} for true, k, score in best]

    def describe(self, cfg: DictConfig, dataset: Split) -> dict[str, Any]:
        height, width, channels = dataset.images.shape
        described: dict[str, Any] = {"shape": [channels, height, width], "flippable": dataset.flippable}
        described |= {"mean": list(cfg.data.mean), "std": list(cfg.data.std), "pixels": reading_of(dataset)}
        return {"kind": "images", "input": described, "output": {"kind": "classes"}}

    def baseline(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """The accuracy of always answering the most frequent class."""
        targets = concatenate(collected)[1]
        return {"accuracy": float(np.bincount(targets).max() / len(targets))}

    def draw_samples(self, dataset: Split, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        from src.kit.report import draw_images

        names = [dataset.classes[target] for target in dataset.targets[chosen]]
        return draw_images(dataset.images.get(chosen), names, path)

    def draw_batch(self, cfg: DictConfig, dataset: Split, split: str, path: Path, count: int) -> Path:
        return draw_image_batch(cfg, dataset, split, path, count)

    def draw_predictions(
        self, collected: Collected, dataset: Split, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write the confusion matrix and sample predictions as `folder/prefix-{confusion,samples}.png`.

        Row i of the logits (N, K) belongs to image i of the split; N may be smaller than the split.
        """
        from src.kit.report import draw_confusion, draw_predictions

        outputs, targets = concatenate(collected)
        names, predicted = dataset.classes, outputs.argmax(axis=1)
        confidence = softmax(outputs).max(axis=1)
        chosen = choose_samples(confidence, predicted == targets, SHOWN)
        return [
            draw_confusion(count_pairs(targets, predicted, len(names)), names, folder / f"{prefix}-confusion.png"),
            draw_predictions(
                dataset.images.get(chosen),
                [names[index] for index in targets[chosen]],
                [names[index] for index in predicted[chosen]],
                confidence[chosen],
                folder / f"{prefix}-samples.png",
                int((predicted != targets).sum()),
            ),
        ]


def concatenate(collected: Collected) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and class indices (N,) of all batches."""
    outputs, targets = (np.concatenate(parts) for parts in zip(*collected, strict=True))
    assert len(outputs) == len(targets) > 0, f"{len(outputs)} outputs for {len(targets)} targets"
    return outputs, targets


def count_pairs(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix: int64 (K, K) counts of true (rows) and predicted (columns) classes."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (targets, predicted), 1)
    return matrix


def choose_samples(confidence: np.ndarray, correct: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` indices: the surest mistakes, then the least sure right answers; half of them are right."""
    order = np.lexsort((np.where(correct, confidence, -confidence), correct))
    wrong = int((~correct).sum())
    first = min(wrong, max(count // 2, count - (len(order) - wrong)))
    return np.concatenate([order[:first], order[wrong:][: count - first]])
