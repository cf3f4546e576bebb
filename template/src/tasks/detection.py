"""Object detection: boxes with classes, scored by COCO's average precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.scenes import (
    CROWD,
    OBJECT,
    Objects,
    Sample,
    SceneLoader,
    Scenes,
    build_scene_loader,
    coco_scores,
    predicted_objects,
    true_objects,
)

MONITOR = "val/map"
MODE = "max"
CONTENT = Scenes.content
VALIDATION_LOSS = False  # predictions are boxes, the loss takes what they are made from
LEAST_SCORE = 0.001  # COCO's curves need the unsure predictions too

Kept = Sequence[tuple[Objects, Objects]]  # predicted and true, of each image


def classes(dataset: Scenes) -> tuple[str, ...]:
    """What the network tells apart."""
    return dataset.classes


def image_shape(cfg: DictConfig, dataset: Scenes) -> tuple[int, int, int]:
    """Height, width and channels of the network's input."""
    return cfg.data.image_size, cfg.data.image_size, 3


def build_loader(cfg: DictConfig, dataset: Scenes, kind: str, rank: int = 0, world_size: int = 1) -> SceneLoader:
    """Batches of images and `arrays`."""
    return build_scene_loader(cfg, dataset, kind, rank, world_size, arrays)


def arrays(targets: Sequence[Sample]) -> tuple[np.ndarray, ...]:
    """A batch's objects, padded to M: labels int64 (B, M), boxes float32 (B, M, 4) as x1, y1, x2, y2 in pixels, and
    kinds uint8 (B, M): 1 for an object, 2 for a crowd, 0 for padding."""
    most = max((len(sample.labels) for sample in targets), default=0)
    labels = np.zeros((len(targets), most), np.int64)
    boxes = np.zeros((len(targets), most, 4), np.float32)
    kinds = np.zeros((len(targets), most), np.uint8)
    for row, sample in enumerate(targets):
        count = len(sample.labels)
        labels[row, :count], boxes[row, :count] = sample.labels, sample.boxes
        kinds[row, :count] = np.where(sample.crowd, CROWD, OBJECT)
    return labels, boxes, kinds


def keep(outputs: np.ndarray, labels: np.ndarray, boxes: np.ndarray, kinds: np.ndarray) -> Kept:
    """What the scores need of a batch's outputs, float32 (B, D, 6): x1, y1, x2, y2, score, class number."""
    return [
        (predicted_objects(rows[rows[:, 4] >= LEAST_SCORE]), true_objects(*truth))
        for rows, *truth in zip(outputs, labels, boxes, kinds, strict=True)
    ]


def metrics(kept: Kept, names: Sequence[str]) -> dict[str, float]:
    """`map`, the mean average precision over overlaps from 0.5 to 0.95, and `map50`, that at 0.5."""
    scores = coco_scores(kept, names, "bbox")
    return {name: scores[name] for name in ("map", "map50")}


def evaluate(kept: Kept, names: Sequence[str]) -> dict[str, Any]:
    """All of `coco_scores`, for JSON."""
    return {**coco_scores(kept, names, "bbox"), "samples": len(kept), "classes": list(names)}


def draw_images(dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the images of these numbers with their boxes."""
    from src.kit.scenes import boxes_only, draw_truth

    return draw_truth(dataset, chosen, cfg, path, boxes_only)


def pictures(kept: Kept, dataset: Scenes, cfg: DictConfig, folder: Path, prefix: str) -> list[Path]:
    """Write `folder/prefix-samples.png`: the truth and what was predicted, side by side."""
    from src.kit.scenes import draw_objects

    return [draw_objects(kept, dataset, cfg, folder / f"{prefix}-samples.png")]
