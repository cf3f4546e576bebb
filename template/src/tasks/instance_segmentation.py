"""Instance segmentation: boxes, classes and a mask for each object, scored by COCO's average precision of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import DictConfig

from src.kit.inference_scenes import paste, sure_rows
from src.kit.scenes import (
    SHOWN_SCORE,
    Objects,
    Sample,
    Scenes,
    SceneTask,
    coco_scores,
    encode,
    example_targets_masks,
    object_rows,
    object_scores,
    pad_objects,
    predicted_objects,
    true_objects,
)

LEAST_SCORE = 0.05
SIDE = 28  # of a predicted mask, which is stretched over its box

Collected = Sequence[tuple[Objects, Objects]]  # predicted and true, of each image


class Task(SceneTask):
    """A box, a class and a mask for each object in an image."""

    monitor = "val/mask_map"
    output: ClassVar = {"kind": "masks", "side": SIDE, "score": SHOWN_SCORE}
    has_validation_loss = False  # the network computes its losses in training only

    def check(self, cfg: DictConfig, dataset: Scenes) -> None:
        super().check(cfg, dataset)
        self.require_boxes(cfg, dataset)
        self.require_outlines(cfg, dataset, dataset.has_outlines)

    def targets(self, samples: Sequence[Sample]) -> tuple[np.ndarray, ...]:
        """Labels, boxes and kinds as `pad_objects` says, and masks uint8 (B, M, H, W) of the objects."""
        labels, boxes, kinds = pad_objects(samples)
        masks = np.zeros((*labels.shape, *samples[0].image.shape[:2]), np.uint8)
        for row, sample in enumerate(samples):
            masks[row, : len(sample.labels)] = sample.masks
        return labels, boxes, kinds, masks

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Collected:
        """The objects in float32 (B, D, 6 + 28 * 28): x1, y1, x2, y2, score, class and the mask's values in 0..1."""
        collected = []
        size = targets[-1].shape[2:]
        for rows, *truth in zip(outputs, *targets, strict=True):
            sure = sure_rows(rows, LEAST_SCORE)
            drawn = [paste(row[6:].reshape(SIDE, SIDE), row[:4], size) for row in sure]
            predicted = predicted_objects(sure[:, :6], encode(np.stack(drawn)) if drawn else [])
            collected.append((predicted, true_objects(*truth)))
        return collected

    def metrics(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """`mask_map` and `mask_map50`, of masks, and `map50`, of boxes."""
        masks, boxes = coco_scores(collected, names, "segm"), coco_scores(collected, names, "bbox")
        return {"mask_map": masks["map"], "mask_map50": masks["map50"], "map50": boxes["map50"]}

    def baseline(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """Guessed masks find nothing."""
        return {"mask_map50": 0.0}

    def evaluate(self, collected: Collected, names: Sequence[str]) -> dict[str, Any]:
        """All of `coco_scores` for boxes, and for masks under names that begin with mask_.

        What `object_scores` says more is of masks.
        """
        masks, boxes = object_scores(collected, names, "segm", self.threshold), coco_scores(collected, names, "bbox")
        more = {name: masks.pop(name) for name in list(masks) if name not in boxes}
        per_class = [
            {
                "class": mask["class"],
                "mask_map": mask["map"],
                "mask_map50": mask["map50"],
                "map": box["map"],
                "map50": box["map50"],
                "precision": mask["precision"],
                "recall": mask["recall"],
                "objects": box["objects"],
            }
            for mask, box in zip(masks.pop("per_class"), boxes.pop("per_class"), strict=True)
        ]
        scores = {f"mask_{name}": value for name, value in masks.items()} | boxes | more
        return {**scores, "per_class": per_class, "samples": len(collected), "classes": list(names)}

    def sample_rows(self, collected: Collected, names: Sequence[str]) -> list[dict[str, Any]]:
        return object_rows(collected, self.threshold, "segm")

    def original_scores(
        self, cfg: DictConfig, collected: Collected, names: Sequence[str], dataset: Scenes
    ) -> dict[str, Any]:
        """The scores of small, medium and large objects with sizes in pixels of the photos, and a note on the names."""
        masks = self.sizes_of_originals(cfg, collected, names, dataset, "segm")
        boxes = self.sizes_of_originals(cfg, collected, names, dataset, "bbox")
        return {**{f"mask_{name}": value for name, value in masks.items()}, **boxes, "note": self.note(cfg)}

    def draw_samples(self, dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        """Draw images with their boxes and masks."""
        from src.kit.scenes import draw_truth

        return draw_truth(dataset, chosen, cfg, path, lambda sample: sample)

    def draw_predictions(
        self, collected: Collected, dataset: Scenes, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write `folder/prefix-samples.png`, truth and predictions side by side, and what `draw_matches` does."""
        from src.kit.scenes import draw_matches, draw_objects

        pictures = draw_matches(collected, dataset.classes, "segm", self.threshold, folder, prefix)
        return [*pictures, draw_objects(collected, dataset, cfg, folder / f"{prefix}-samples.png", self.threshold)]

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        return example_targets_masks(shape, batch)
