"""The entries of a COCO file, checked."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.kit.config import UserError
from src.kit.scenes.annotations import Annotations

KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "annotations": {"id": object, "image_id": (int, str), "category_id": int, "bbox": object},
    "categories": {"id": int, "name": object},
}


def check_keys(entry: Any, section: str, path: Path) -> None:
    """Refuse an entry that lacks a key or has a value of another type."""
    entry = entry if isinstance(entry, dict) else {}
    for key, kind in KEYS[section].items():
        if entry.get(key) is None or not isinstance(entry[key], kind):
            named = f"the entry of id {entry['id']!r}" if "id" in entry else "an entry"
            problem = f"has the wrong {key} {entry[key]!r}" if key in entry else f"has no {key!r}"
            raise UserError(f"{path}: {named} in {section!r} {problem}.")


def add(annotations: Annotations, entry: Mapping[str, Any], image: int, where: str) -> None:
    """Add one annotation, with its category id as the label; `where` begins every message."""
    box, outline = entry["bbox"], entry.get("segmentation") or None
    try:
        left, top, width, height = map(float, box)
        finite = math.isfinite(left + top + width + height)
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise UserError(f"{where} has the bbox {box}, which must be four numbers: x, y, width, height.")
    crowd = bool(entry.get("iscrowd", 0))
    annotations.add_object(
        image, (left, top, left + width, top + height), entry["category_id"], crowd, checked(outline, where)
    )


def checked(outline: Any, where: str) -> Sequence[Sequence[float]] | Mapping[str, Any] | None:
    """Rings of x, y, ... as they are, a run-length code with its counts compressed."""
    if outline is None:
        return None
    if isinstance(outline, dict):
        return packed(outline, where)
    if not (isinstance(outline, list) and all(isinstance(ring, list) for ring in outline)):
        raise UserError(f"{where} has a 'segmentation' that is neither polygons nor a run-length code.")
    for ring in outline:
        if len(ring) < 6 or len(ring) % 2:
            raise UserError(f"{where} has a polygon of {len(ring)} numbers: it must have x and y of at least 3 points.")
        try:
            finite = math.isfinite(sum(ring))
        except TypeError:
            finite = False
        if not finite:
            raise UserError(f"{where} has a polygon with something else than finite numbers in it.")
    return outline


def packed(code: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A run-length code with its counts compressed."""
    from pycocotools import mask

    size, counts = code.get("size"), code.get("counts")
    try:
        height, width = map(int, size)  # type: ignore[arg-type]
        if isinstance(counts, str):
            return {"size": [height, width], "counts": counts.encode()}
        if sum(counts) == height * width and min(counts) >= 0:  # type: ignore[arg-type]
            return mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    except (TypeError, ValueError):
        pass
    raise UserError(f"{where} has a run-length code without a size [height, width] that its counts fill.")
