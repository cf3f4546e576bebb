"""Outlines of objects: polygons or COCO's run-length code, stored compactly and rasterised as COCO does."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# rings float32 (P, 2) of x, y, together one object; or {"size": [H, W], "counts": bytes}, COCO's compressed run lengths
Outline = Sequence[np.ndarray] | Mapping[str, Any]


def rasterise(outline: Outline, height: int, width: int) -> np.ndarray:
    """Mask bool (H, W) of an outline in pixels, as pycocotools draws it.

    Raises:
        ValueError: a run-length code that does not fill its image.
    """
    from pycocotools import mask

    drawn: np.ndarray = mask.decode(encode(outline, height, width)).astype(bool)
    return drawn


def extent(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of an array (H, W) from the first to the last that is not zero; none if all are."""
    used = [np.flatnonzero(mask.any(axis=axis)).tolist() or [0, -1] for axis in (1, 0)]
    rows, columns = (slice(places[0], places[-1] + 1) for places in used)
    return rows, columns


def encode(outline: Outline, height: int, width: int) -> Mapping[str, Any]:
    """The compressed run-length code of an outline in pixels."""
    from pycocotools import mask

    if isinstance(outline, Mapping):
        return outline
    # COCO gives hundredths of a pixel: rounding undoes float32, which moves points over pycocotools' grid of fifths
    rings = [np.round(ring.astype(np.float64), 3).ravel().tolist() for ring in outline]
    code: Mapping[str, Any] = mask.merge(mask.frPyObjects(rings, height, width))
    return code


class Outlines:
    """The outlines of many objects in a few arrays: COCO's 860,000 fit into 200 MB."""

    def __init__(self) -> None:
        self.points = array("f")  # x, y, x, y, ... of all rings
        self.ring_ends = array("q")  # where each ring ends in `points`
        self.object_ends = array("q")  # where each object ends in `ring_ends`
        self.codes: dict[int, Mapping[str, Any]] = {}  # object -> run-length code
        self.missing = 0

    def __len__(self) -> int:
        return len(self.object_ends)

    def append(self, outline: Sequence[Sequence[float]] | Mapping[str, Any] | None) -> None:
        """Add an object's rings of x, y, x, y, ..., its run-length code, or None where it has no outline."""
        if isinstance(outline, Mapping):
            self.codes[len(self)] = outline
        elif outline is None:
            self.missing += 1
        else:
            for ring in outline:
                self.points.extend(ring)
                self.ring_ends.append(len(self.points))
        self.object_ends.append(len(self.ring_ends))

    def __getitem__(self, number: int) -> Outline:
        if number in self.codes:
            return self.codes[number]
        first, last = (self.object_ends[number - 1] if number else 0), self.object_ends[number]
        rings = []
        for ring in range(first, last):
            start = self.ring_ends[ring - 1] if ring else 0
            rings.append(np.array(self.points[start : self.ring_ends[ring]], np.float32).reshape(-1, 2))
        return rings
