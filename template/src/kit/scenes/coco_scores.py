"""COCO's average precision of boxes or masks, counted by pycocotools (https://cocodataset.org/#detection-eval)."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from src.kit.scenes.objects import Objects

# the numbers that pycocotools prints, by their places in its `stats`
SCORES = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall100": 8}
SIZES = ("map_small", "map_medium", "map_large")


def coco_scores(
    kept: Sequence[tuple[Objects, Objects]], classes: Sequence[str], kind: Literal["bbox", "segm"]
) -> dict[str, Any]:
    """Compare what was predicted for N images with the truth, by boxes ("bbox") or by masks ("segm").

    Returns:
        map (the mean over overlaps from 0.5 to 0.95), map50, map75, map_small, map_medium, map_large (areas below
        32^2, below 96^2 and above), recall100, and `per_class` with map, map50 and the number of objects. Sizes and
        classes without any object to find have None; without any at all, the other scores are 0.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    predicted, true = zip(*kept, strict=True)
    # pycocotools asks for the size of every image, though run-length codes have their own
    images = [{"id": number, "height": 0, "width": 0} for number in range(len(true))]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
        truth, found = COCO(), COCO()
        truth.dataset = {"images": images, "categories": categories, "annotations": list(rows(true, kind))}
        found.dataset = {"images": images, "categories": categories, "annotations": list(rows(predicted, kind))}
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
        {"class": name, "map": mean(precision[..., k]), "map50": mean(precision[0, :, k]), "objects": int(objects[k])}
        for k, name in enumerate(classes)
    ]
    return result


def mean(precision: np.ndarray) -> float | None:
    """The mean of the precisions that exist; -1 stands for a class without objects."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


def rows(images: Sequence[Objects], kind: str) -> Iterator[dict[str, Any]]:
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
