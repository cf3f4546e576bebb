"""The objects of an image, predicted or true, and COCO's average precision of them.

pycocotools counts it: https://cocodataset.org/#detection-eval.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

OBJECT, CROWD = 1, 2  # kinds in the padded arrays of a batch; 0 is padding
# score -> its index in pycocotools' `stats`
SCORES = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall100": 8}
SIZES = ("map_small", "map_medium", "map_large")


@dataclass(frozen=True)
class Objects:
    """M objects of an image, small enough to keep those of a whole split; true ones have the score 1."""

    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2 in pixels
    labels: np.ndarray  # int64 (M,)
    scores: np.ndarray  # float32 (M,), 0 to 1
    crowd: np.ndarray  # bool (M,): a region of many objects, where no prediction counts as wrong
    outlines: list[dict[str, Any]] | None = None  # COCO's run-length encoding of each mask

    def __len__(self) -> int:
        return len(self.labels)


def true_objects(labels: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, masks: np.ndarray | None = None) -> Objects:
    """Make the true objects of an image from its rows of a batch's padded arrays."""
    real = kinds > 0
    outlines = None if masks is None else encode(masks[real])
    return Objects(boxes[real], labels[real], np.ones(real.sum(), np.float32), kinds[real] == CROWD, outlines)


def predicted_objects(rows: np.ndarray, outlines: list[dict[str, Any]] | None = None) -> Objects:
    """Make predicted objects from float32 (M, 6): x1, y1, x2, y2, score, class number."""
    return Objects(rows[:, :4], rows[:, 5].astype(np.int64), rows[:, 4], np.zeros(len(rows), bool), outlines)


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length encode masks (M, H, W) of bool or of 0 and 1."""
    from pycocotools.mask import encode as to_runs

    return list(to_runs(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))) if len(masks) else []


def coco_scores(
    kept: Sequence[tuple[Objects, Objects]], classes: Sequence[str], kind: Literal["bbox", "segm"]
) -> dict[str, Any]:
    """Compare the predictions for N images with the truth, by boxes ("bbox") or by masks ("segm").

    Returns:
        map (the mean over overlaps from 0.5 to 0.95), map50, map75, map_small, map_medium, map_large (areas below
        32^2, below 96^2 and above), recall100, and `per_class` with map, map50 and the number of objects. Sizes and
        classes without true objects have None; without any true object, the other scores are 0.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    predicted, true = zip(*kept, strict=True)
    # pycocotools asks for the size of every image, though run-length codes have their own
    images = [{"id": number, "height": 0, "width": 0} for number in range(len(true))]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth, found = COCO(), COCO()
        truth.dataset = {"images": images, "categories": categories, "annotations": list(to_annotations(true, kind))}
        found.dataset = {
            "images": images,
            "categories": categories,
            "annotations": list(to_annotations(predicted, kind)),
        }
        truth.createIndex()
        found.createIndex()
        counter = COCOeval(truth, found, kind)
        counter.evaluate()
        counter.accumulate()
        counter.summarize()
    precision = counter.eval["precision"][:, :, :, 0, 2]  # (overlaps, recalls, classes) of all areas, 100 detections
    objects = np.bincount(np.concatenate([each.labels[~each.crowd] for each in true]), minlength=len(classes))
    result: dict[str, Any] = {name: max(0.0, float(counter.stats[place])) for name, place in SCORES.items()}
    result |= {name: None for name in SIZES if counter.stats[SCORES[name]] < 0}
    result["per_class"] = [
        {
            "class": name,
            "map": mean_precision(precision[..., k]),
            "map50": mean_precision(precision[0, :, k]),
            "objects": int(objects[k]),
        }
        for k, name in enumerate(classes)
    ]
    return result


def mean_precision(precision: np.ndarray) -> float | None:
    """The mean of the precisions; -1 stands for a class without objects and is left out."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


def to_annotations(images: Sequence[Objects], kind: str) -> Iterator[dict[str, Any]]:
    """COCO's annotations, numbered from 1: pycocotools takes 0 for "no match"."""
    number = 0
    for image, objects in enumerate(images):
        for k in range(len(objects)):
            number += 1
            x1, y1, x2, y2 = (float(value) for value in objects.boxes[k])
            row = {
                "id": number,
                "image_id": image,
                "category_id": int(objects.labels[k]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(objects.crowd[k]),
                "score": float(objects.scores[k]),
            }
            if kind == "segm":
                from pycocotools.mask import area

                assert objects.outlines is not None, "masks are compared, so there must be some"
                row |= {"segmentation": objects.outlines[k], "area": float(area(objects.outlines[k]))}
            yield row
