"""Semantic segmentation: a class for every pixel, scored by intersection over union."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.scenes import IGNORE, Sample, SceneLoader, Scenes, build_scene_loader

MONITOR = "val/miou"
MODE = "max"
CONTENT = Scenes.content
VALIDATION_LOSS = True  # predictions are what the loss takes
BACKGROUND = "background"


@dataclass(frozen=True)
class Counts:
    """What is kept of a batch: int64 (K, K) pixels by true (rows) and predicted class, and one example."""

    pixels: np.ndarray
    images: int
    example: np.ndarray  # uint8 (H, W), predicted for the batch's first image


def classes(dataset: Scenes) -> tuple[str, ...]:
    """What pixels are sorted into: where only objects are outlined, the rest of the image is a class of its own."""
    return dataset.classes if dataset.has_class_maps else (BACKGROUND, *dataset.classes)


def check(cfg: DictConfig, dataset: Scenes) -> None:
    """Refuse data without outlines or class maps.

    Raises:
        UserError: says what is missing.
    """
    if not (dataset.has_outlines or dataset.has_class_maps):
        raise UserError(
            f"task={cfg.task} needs an outline for every object, and data={cfg.data.name} has only boxes for some or "
            "all: choose another data set or task=detection."
        )


def image_shape(cfg: DictConfig, dataset: Scenes) -> tuple[int, int, int]:
    """Height, width and channels of the network's input."""
    return cfg.data.image_size, cfg.data.image_size, 3


def build_loader(cfg: DictConfig, dataset: Scenes, kind: str, rank: int = 0, world_size: int = 1) -> SceneLoader:
    """Batches of images and `arrays`."""
    return build_scene_loader(cfg, dataset, kind, rank, world_size, arrays)


def arrays(targets: Sequence[Sample]) -> tuple[np.ndarray, ...]:
    """Class maps uint8 (B, H, W), 255 where nothing is to be learned."""
    return (np.stack([class_map(sample) for sample in targets]),)


def class_map(sample: Sample) -> np.ndarray:
    """The sample's class map, or one drawn from its outlines, large objects first: uint8 (H, W)."""
    if sample.semantic is not None:
        return sample.semantic
    assert sample.masks is not None, "a data set for segmentation has outlines or class maps"
    drawn = np.zeros(sample.image.shape[:2], np.uint8)
    for k in np.argsort(-sample.masks.sum(axis=(1, 2))):
        drawn[sample.masks[k]] = IGNORE if sample.crowd[k] else sample.labels[k] + 1
    return drawn


def keep(outputs: np.ndarray, true: np.ndarray) -> list[Counts]:
    """Count a batch's logits (B, K, H, W) against its class maps (B, H, W)."""
    kinds = outputs.shape[1]
    predicted = outputs.argmax(axis=1)
    known = true != IGNORE
    pairs = true[known].astype(np.int64) * kinds + predicted[known]
    pixels = np.bincount(pairs, minlength=kinds**2).reshape(kinds, kinds)
    return [Counts(pixels, len(true), predicted[0].astype(np.uint8))]


def metrics(kept: Sequence[Counts], names: Sequence[str]) -> dict[str, float]:
    """`miou`, the mean intersection over union of the classes that occur, and `pixel_accuracy`, both in 0..1."""
    pixels = np.sum([counts.pixels for counts in kept], axis=0)
    overlap, occurs = intersection_over_union(pixels)
    return {
        "miou": float(overlap[occurs].mean()) if occurs.any() else 0.0,
        "pixel_accuracy": float(np.trace(pixels) / max(1, pixels.sum())),
    }


def intersection_over_union(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each class (K,), and whether it occurs in the truth or the predictions."""
    hits = np.diag(pixels)
    union = pixels.sum(axis=0) + pixels.sum(axis=1) - hits
    return hits / np.maximum(union, 1), union > 0


def evaluate(kept: Sequence[Counts], names: Sequence[str]) -> dict[str, Any]:
    """The scores of `metrics` and `per_class`: each class's intersection over union, None where it neither is nor is
    predicted, and its share of the pixels."""
    pixels = np.sum([counts.pixels for counts in kept], axis=0)
    overlap, occurs = intersection_over_union(pixels)
    share = pixels.sum(axis=1) / max(1, pixels.sum())
    rows = [
        {"class": name, "iou": float(overlap[k]) if occurs[k] else None, "pixel_share": float(share[k])}
        for k, name in enumerate(names)
    ]
    samples = sum(counts.images for counts in kept)
    return {**metrics(kept, names), "samples": samples, "classes": list(names), "per_class": rows}


def draw_images(dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the images of these numbers with their class maps."""
    from src.kit.scenes import draw_truth, with_class_map

    return draw_truth(dataset, chosen, cfg, path, lambda sample: with_class_map(sample, class_map(sample), dataset))


def pictures(kept: Sequence[Counts], dataset: Scenes, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write `folder/prefix-samples.png`: the truth and what was predicted, side by side."""
    from src.kit.scenes import draw_class_maps

    batches = range(0, len(dataset), cfg.data.batch_size)
    examples = [(first, counts.example) for first, counts in zip(batches, kept, strict=False)]
    return [draw_class_maps(examples, dataset, cfg, folder / f"{prefix}-samples.png", class_map)]
