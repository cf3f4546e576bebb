"""Semantic segmentation: a class for every pixel, scored by intersection over union."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import largest_batch
from src.kit.scenes import IGNORE, Sample, Scenes, SceneTask, class_map, example_targets_class_map

COUNTED = 1000  # images whose pixels are counted for class weights, at most


@dataclass(frozen=True)
class Counts:
    """What is kept of a batch: int64 (K, K) pixels by true (rows) and predicted class, and one example."""

    pixels: np.ndarray
    scores: np.ndarray  # float32 (B, 2): each image's mean intersection over union, and its accuracy
    example: np.ndarray  # uint8 (H, W), predicted for the batch's first image


class Task(SceneTask):
    """A class for every pixel."""

    monitor = "val/miou"
    extra_classes = 1  # the background
    output: ClassVar = {"kind": "class_map"}

    def check(self, cfg: DictConfig, dataset: Scenes) -> None:
        super().check(cfg, dataset)
        self.require_outlines(cfg, dataset, dataset.has_outlines or dataset.has_class_maps)
        dataset.refuse_useless(cfg.data.name)

    def view(self, dataset: Scenes) -> Scenes:
        return dataset.as_class_maps()

    def classes(self, dataset: Scenes) -> tuple[str, ...]:
        """The classes of pixels: what belongs to no object is a class of its own."""
        return dataset.pixel_classes

    def class_counts(self, cfg: DictConfig, dataset: Scenes) -> np.ndarray | None:
        """The pixels of each class; 0 unless the loss weighs classes, since counting reads the images."""
        if cfg.loss.get("class_weights", "none") == "none":
            return np.zeros(len(self.classes(dataset)), np.int64)
        return self.view(dataset).pixel_counts(COUNTED)

    def targets(self, samples: Sequence[Sample]) -> tuple[np.ndarray, ...]:
        """Class maps uint8 (B, H, W), 255 where nothing is to be learned."""
        return (np.stack([class_map(sample) for sample in samples]),)

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> list[Counts]:
        """Count a batch's logits (B, K, H, W) against its class maps (B, H, W)."""
        kinds, true = outputs.shape[1], targets[0]
        predicted = outputs.argmax(axis=1)
        counts = [count_pixels(*maps, kinds) for maps in zip(true, predicted, strict=True)]
        scores = np.array([score(pixels) for pixels in counts], np.float32)
        return [Counts(np.sum(counts, axis=0), scores, predicted[0].astype(np.uint8))]

    def metrics(self, collected: Sequence[Counts], names: Sequence[str]) -> dict[str, float]:
        """`miou`, the mean intersection over union of the classes that occur, and `pixel_accuracy`, both in 0..1."""
        miou, accuracy = score(np.sum([counts.pixels for counts in collected], axis=0))
        return {"miou": miou, "pixel_accuracy": accuracy}

    def evaluate(self, collected: Sequence[Counts], names: Sequence[str]) -> dict[str, Any]:
        """The scores of `metrics`, and `per_class`: each class's intersection over union and share of the pixels.

        The intersection over union is None for a class that neither occurs nor is predicted.
        """
        pixels = np.sum([counts.pixels for counts in collected], axis=0)
        overlap, occurs = intersection_over_union(pixels)
        share = pixels.sum(axis=1) / max(1, pixels.sum())
        rows = [
            {"class": name, "iou": float(overlap[k]) if occurs[k] else None, "pixel_share": float(share[k])}
            for k, name in enumerate(names)
        ]
        samples = sum(len(counts.scores) for counts in collected)
        return {**self.metrics(collected, names), "samples": samples, "classes": list(names), "per_class": rows}

    def sample_rows(self, collected: Sequence[Counts], names: Sequence[str]) -> list[dict[str, Any]]:
        """Each image's own scores."""
        rows = np.concatenate([counts.scores for counts in collected])
        return [{"miou": float(miou), "pixel_accuracy": float(accuracy)} for miou, accuracy in rows]

    def baseline(self, collected: Sequence[Counts], names: Sequence[str]) -> dict[str, float]:
        """The mean intersection over union of giving every pixel the most frequent class."""
        true = np.sum([counts.pixels for counts in collected], axis=0).sum(axis=1)
        return {"miou": float(true.max() / max(true.sum(), 1) / max((true > 0).sum(), 1))}

    def draw_samples(self, dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        """Draw images with their class maps."""
        from src.kit.scenes import draw_truth, with_class_map

        maps = self.view(dataset)
        return draw_truth(maps, chosen, cfg, path, lambda sample: with_class_map(sample, class_map(sample), dataset))

    def draw_predictions(
        self, collected: Sequence[Counts], dataset: Scenes, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write `folder/prefix-samples.png`: the truth and the prediction, side by side."""
        from src.kit.scenes import draw_class_maps

        batches = range(0, len(dataset), largest_batch(cfg))
        examples = [(first, counts.example) for first, counts in zip(batches, collected, strict=False)]
        return [draw_class_maps(examples, self.view(dataset), cfg, folder / f"{prefix}-samples.png", class_map)]

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        return example_targets_class_map(shape, batch)

    def example_objects(self, cfg: DictConfig) -> int:
        return 0


def intersection_over_union(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each class (K,), and whether it occurs in the truth or the predictions."""
    hits = np.diag(pixels)
    union = pixels.sum(axis=0) + pixels.sum(axis=1) - hits
    return hits / np.maximum(union, 1), union > 0


def count_pixels(true: np.ndarray, predicted: np.ndarray, kinds: int) -> np.ndarray:
    """An image's pixels, int64 (K, K), by true (rows) and predicted class."""
    known = true != IGNORE
    pairs = true[known].astype(np.int64) * kinds + predicted[known]
    return np.bincount(pairs, minlength=kinds**2).reshape(kinds, kinds)


def score(pixels: np.ndarray) -> tuple[float, float]:
    """The mean intersection over union of the classes that occur, and the share of pixels that are right."""
    overlap, occurs = intersection_over_union(pixels)
    miou = float(overlap[occurs].mean()) if occurs.any() else 0.0
    return miou, float(np.trace(pixels) / max(1, pixels.sum()))
