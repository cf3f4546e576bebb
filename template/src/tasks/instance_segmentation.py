"""Instance segmentation: boxes, classes and a mask for each object, scored by COCO's average precision of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.scenes import (
    Sample,
    SceneLoader,
    Scenes,
    build_scene_loader,
    coco_scores,
    encode,
    predicted_objects,
    true_objects,
)
from src.tasks import detection

MONITOR = "val/mask_map"
MODE = "max"
CONTENT = Scenes.content
VALIDATION_LOSS = False  # the losses come from the network in training
LEAST_SCORE = 0.05
SIDE = 28  # of a predicted mask, which is stretched over its box

classes, image_shape, pictures = detection.classes, detection.image_shape, detection.pictures
Kept = detection.Kept


def check(cfg: DictConfig, dataset: Scenes) -> None:
    """Refuse data without outlines.

    Raises:
        UserError: says what is missing.
    """
    if not dataset.has_outlines:
        raise UserError(
            f"task={cfg.task} needs an outline for every object, and data={cfg.data.name} has only boxes for some or "
            "all: choose another data set or task=detection."
        )


def build_loader(cfg: DictConfig, dataset: Scenes, kind: str, rank: int = 0, world_size: int = 1) -> SceneLoader:
    """Batches of images and `arrays`."""
    return build_scene_loader(cfg, dataset, kind, rank, world_size, arrays)


def arrays(targets: Sequence[Sample]) -> tuple[np.ndarray, ...]:
    """Detection's labels, boxes and kinds, and masks uint8 (B, M, H, W) of the objects."""
    labels, boxes, kinds = detection.arrays(targets)
    masks = np.zeros((*labels.shape, *targets[0].image.shape[:2]), np.uint8)
    for row, sample in enumerate(targets):
        masks[row, : len(sample.labels)] = sample.masks
    return labels, boxes, kinds, masks


def keep(outputs: np.ndarray, labels: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, masks: np.ndarray) -> Kept:
    """What the scores need of float32 (B, D, 6 + 28 * 28): x1, y1, x2, y2, score, class and the mask's values 0..1."""
    kept = []
    for rows, *truth in zip(outputs, labels, boxes, kinds, masks, strict=True):
        sure = rows[rows[:, 4] >= LEAST_SCORE]
        drawn = [paste(row[6:].reshape(SIDE, SIDE), row[:4], masks.shape[2:]) for row in sure]
        kept.append((predicted_objects(sure[:, :6], encode(np.stack(drawn)) if drawn else []), true_objects(*truth)))
    return kept


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Stretch a mask (28, 28) of values 0..1 over its box in an image of `size` = (height, width): bool (H, W)."""
    import cv2

    height, width = size
    left, top = np.floor(box[:2]).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(box[2:]).astype(int).clip((left + 1, top + 1), (width, height))
    whole = np.zeros(size, bool)
    whole[top:bottom, left:right] = cv2.resize(mask, (int(right - left), int(bottom - top))) > 0.5
    return whole


def metrics(kept: Kept, names: Sequence[str]) -> dict[str, float]:
    """`mask_map` and `mask_map50`, of masks, and `map50`, of boxes."""
    masks, boxes = coco_scores(kept, names, "segm"), coco_scores(kept, names, "bbox")
    return {"mask_map": masks["map"], "mask_map50": masks["map50"], "map50": boxes["map50"]}


def evaluate(kept: Kept, names: Sequence[str]) -> dict[str, Any]:
    """All of `coco_scores`: for boxes, and for masks under names that begin with mask_."""
    masks, boxes = coco_scores(kept, names, "segm"), coco_scores(kept, names, "bbox")
    per_class = [
        {
            "class": mask["class"],
            "mask_map": mask["map"],
            "mask_map50": mask["map50"],
            "map": box["map"],
            "map50": box["map50"],
            "objects": box["objects"],
        }
        for mask, box in zip(masks.pop("per_class"), boxes.pop("per_class"), strict=True)
    ]
    scores = {f"mask_{name}": value for name, value in masks.items()} | boxes
    return {**scores, "per_class": per_class, "samples": len(kept), "classes": list(names)}


def draw_images(dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the images of these numbers with their boxes and masks."""
    from src.kit.scenes import draw_truth

    return draw_truth(dataset, chosen, cfg, path, lambda sample: sample)
