"""Write YOLO's format: images/<split>/, labels/<split>/ and data.yaml."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from src.kit.scenes.formats.polygons import one_ring
from src.kit.scenes.records import Record


def image_folder(root: Path, split: str) -> Path:
    """Where the images of a split belong."""
    return root / "images" / split


def write(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
    """Write a split's label files, with outlines where the data set has them, and return what was lost.

    Args:
        entries: the file name of each image, and its record in pixels.
    """
    lost: Counter[str] = Counter()
    for name, record in entries:
        lines = []
        for place, label in enumerate(record.labels):
            if record.crowd[place]:
                lost["crowd regions left out, which YOLO's format does not know"] += 1
                continue
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in coordinates(record, place, lost))]))
        path = root / "labels" / split / Path(name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return lost


def coordinates(record: Record, place: int, lost: Counter[str]) -> np.ndarray:
    """An object's outline or, without one, its box: fractions of the image."""
    assert record.size is not None
    width, height = record.size
    if record.outlines is not None:
        outline = record.outlines[place]
        ring = one_ring(outline, height, width)
        if len(ring) >= 3:
            if isinstance(outline, Mapping):
                lost["run-length codes traced as outlines, without their holes"] += 1
            elif len(outline) > 1:
                lost["outlines of several parts joined into one"] += 1
            return (ring / [width, height]).clip(0, 1).ravel()
        lost["empty outlines replaced by boxes"] += 1
    left, top, right, bottom = record.boxes[place].astype(float) / np.tile([width, height], 2)
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def finish(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write data.yaml: the class names, and the folders as other tools look for them."""
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(classes))}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (root / "data.yaml").write_text(text, "utf-8")
