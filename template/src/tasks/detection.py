"""Object detection: boxes with classes, scored by COCO's average precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import DictConfig

from src.kit.inference_scenes import sure_rows
from src.kit.scenes import (
    SHOWN_SCORE,
    Objects,
    Sample,
    Scenes,
    SceneTask,
    coco_scores,
    object_rows,
    object_scores,
    pad_objects,
    predicted_objects,
    true_objects,
)

LEAST_SCORE = 0.001  # COCO's curves need the unsure predictions too

Collected = Sequence[tuple[Objects, Objects]]  # predicted and true, of each image


class Task(SceneTask):
    """Boxes and classes of the objects in an image."""

    monitor = "val/map"
    output: ClassVar = {"kind": "boxes", "score": SHOWN_SCORE}
    has_validation_loss = False  # predictions are boxes; the loss takes what they are made from

    def check(self, cfg: DictConfig, dataset: Scenes) -> None:
        super().check(cfg, dataset)
        self.require_boxes(cfg, dataset)

    def targets(self, samples: Sequence[Sample]) -> tuple[np.ndarray, ...]:
        """Labels (B, M), boxes (B, M, 4) and kinds (B, M), as `pad_objects` says."""
        return pad_objects(samples)

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> Collected:
        """The objects in a batch's outputs, float32 (B, D, 6): x1, y1, x2, y2, score, class number."""
        return [
            (predicted_objects(sure_rows(rows, LEAST_SCORE)), true_objects(*truth))
            for rows, *truth in zip(outputs, *targets, strict=True)
        ]

    def metrics(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """`map`, the mean average precision over overlaps from 0.5 to 0.95, and `map50`, that at 0.5."""
        scores = coco_scores(collected, names, "bbox")
        return {name: scores[name] for name in ("map", "map50")}

    def evaluate(self, collected: Collected, names: Sequence[str]) -> dict[str, Any]:
        """All of `object_scores`, for JSON."""
        return {
            **object_scores(collected, names, "bbox", self.threshold),
            "samples": len(collected),
            "classes": list(names),
        }

    def baseline(self, collected: Collected, names: Sequence[str]) -> dict[str, float]:
        """Guessed boxes find nothing."""
        return {"map50": 0.0}

    def sample_rows(self, collected: Collected, names: Sequence[str]) -> list[dict[str, Any]]:
        return object_rows(collected, self.threshold)

    def original_scores(
        self, cfg: DictConfig, collected: Collected, names: Sequence[str], dataset: Scenes
    ) -> dict[str, Any]:
        """The scores of small, medium and large objects with sizes in pixels of the photos, and a note on the names."""
        return {**self.sizes_of_originals(cfg, collected, names, dataset, "bbox"), "note": self.note(cfg)}

    def draw_samples(self, dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        """Draw images with their boxes."""
        from src.kit.scenes import boxes_only, draw_truth

        return draw_truth(dataset, chosen, cfg, path, boxes_only)

    def draw_predictions(
        self, collected: Collected, dataset: Scenes, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write `folder/prefix-samples.png`, truth and predictions side by side, and what `draw_matches` does."""
        from src.kit.scenes import draw_matches, draw_objects

        pictures = draw_matches(collected, dataset.classes, "bbox", self.threshold, folder, prefix)
        return [*pictures, draw_objects(collected, dataset, cfg, folder / f"{prefix}-samples.png", self.threshold)]
