"""The objects of one image, predicted or true, compact enough to keep those of a whole split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

OBJECT, CROWD = 1, 2  # kinds in the padded arrays of a batch; 0 is padding


@dataclass(frozen=True)
class Objects:
    """M objects of an image; a true object's score is 1."""

    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2 in pixels
    labels: np.ndarray  # int64 (M,)
    scores: np.ndarray  # float32 (M,), 0 to 1
    crowd: np.ndarray  # bool (M,): a region of many objects, where no prediction counts as wrong
    outlines: list[dict[str, Any]] | None = None  # COCO's run-length encoding of each mask

    def __len__(self) -> int:
        return len(self.labels)


def true_objects(labels: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, masks: np.ndarray | None = None) -> Objects:
    """One image's rows of the padded arrays, without the padding."""
    real = kinds > 0
    outlines = None if masks is None else encode(masks[real])
    return Objects(boxes[real], labels[real], np.ones(real.sum(), np.float32), kinds[real] == CROWD, outlines)


def predicted_objects(rows: np.ndarray, outlines: list[dict[str, Any]] | None = None) -> Objects:
    """From float32 (M, 6): x1, y1, x2, y2, score, class number."""
    return Objects(rows[:, :4], rows[:, 5].astype(np.int64), rows[:, 4], np.zeros(len(rows), bool), outlines)


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length encoding of (M, H, W) masks, of bool or of 0 and 1."""
    from pycocotools.mask import encode as to_runs

    return list(to_runs(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))) if len(masks) else []
