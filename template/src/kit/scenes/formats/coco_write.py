"""Write COCO's format: <split>/ with the images and annotations/instances_<split>.json."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.kit.scenes.outlines import Outline, encode
from src.kit.scenes.records import Record


def image_folder(root: Path, split: str) -> Path:
    """Where the images of a split belong."""
    return root / split


def write(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
    """Write a split's annotations; categories get the ids 1, 2, 3, ... No object loses anything.

    Args:
        entries: the file name of each image, and its record in pixels.
    """
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    count = 0
    # the annotations of a large data set do not fit into memory: they are written as they come
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for name, record in entries:
            assert record.size is not None
            images.append({"id": len(images) + 1, "file_name": name, "width": record.size[0], "height": record.size[1]})
            for place in range(len(record.labels)):
                count += 1
                entry = {"id": count, "image_id": len(images), **describe(record, place)}
                file.write(f"{',' if count > 1 else ''}\n{json.dumps(entry)}")
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        file.write(
            f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories, ensure_ascii=False)}}}\n'
        )
    return Counter()


def finish(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Everything is in the splits' files."""


def describe(record: Record, place: int) -> dict[str, Any]:
    """One object's category, box, outline and area."""
    from pycocotools import mask

    assert record.size is not None
    left, top, right, bottom = record.boxes[place].astype(float)
    entry = {
        "category_id": int(record.labels[place]) + 1,
        "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
        "iscrowd": int(record.crowd[place]),
        "area": round((right - left) * (bottom - top), 3),
    }
    if record.outlines is None:
        return entry
    outline = record.outlines[place]
    area = int(mask.area(encode(outline, record.size[1], record.size[0])))
    return {**entry, "area": area, "segmentation": segmentation(outline)}


def segmentation(outline: Outline) -> Any:
    """An outline as JSON has it."""
    if isinstance(outline, Mapping):
        return {"size": outline["size"], "counts": outline["counts"].decode()}
    return [[round(value, 3) for value in ring.ravel().tolist()] for ring in outline]
