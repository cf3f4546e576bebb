"""The values in COCO's entries: ids and flags of any type, boxes, outlines, run-length codes.

The reader and the check both ask here, so that they accept and refuse the same.
"""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

FAULT = tuple[str, str]  # a kind of finding, and what is wrong, such as "an outline has 2 points"
MOST = 2**31 - 1  # pixels of a side
# COCO's compressed code: groups of up to 6 letters of 5 bits each, the last of them below "P"
CODE = re.compile(rb"(?:[P-o]{0,5}[0-O])+")


def shown(value: Any) -> str:
    """A value for a message, at most 80 letters, however long or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)[:80]


def whole(value: Any) -> int | None:
    """The integer in 7, 7.0 and "7"; None for anything else, true and false too, and beyond 64 bits."""
    written = isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value)
    if written or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def identifier(value: Any) -> int | str | None:
    """An id: a whole number, whatever its type, or else a text; None for anything else."""
    number = whole(value)
    return value if number is None and isinstance(value, str) and value else number


def pixels(value: Any) -> int | None:
    """A width or height; None for anything that isn't a whole number of at least 1."""
    number = whole(value)
    return number if number is not None and 0 < number <= MOST else None


def flag(value: Any) -> bool | None:
    """COCO's iscrowd: 0 or 1 of any type, or left out; None for anything else."""
    number = int(value) if isinstance(value, bool) else 0 if value is None else whole(value)
    return bool(number) if number in (0, 1) else None


def text(value: Any) -> str | None:
    """A name: a text or a number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return None if re.search("[\ud800-\udfff]", name := str(value)) else name  # halves of letters: no UTF-8


def inner_path(value: Any) -> PurePosixPath | None:
    """A file_name, relative and with slashes; None for anything else."""
    if not isinstance(value, str) or re.search("[\\\\\0\ud800-\udfff]", value):
        return None
    path = PurePosixPath(value)
    return None if path.is_absolute() or ".." in path.parts or not path.name else path


def numbers(values: Any) -> list[float] | None:
    """The values if they are a list of finite numbers, else None."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return None
    try:
        return values if math.isfinite(sum(values)) or all(map(math.isfinite, values)) else None
    except OverflowError:  # an integer beyond all floats
        return None


def corners(values: Any) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 of a "bbox", which is x, y, width, height; None unless these are four finite numbers."""
    box = numbers(values)
    if box is None or len(box) != 4:
        return None
    try:
        left, top, width, height = map(float, box)
    except OverflowError:
        return None
    edges = left, top, left + width, top + height
    return edges if all(map(math.isfinite, edges)) else None


def area_of(value: Any) -> float:
    """An annotation's area in pixels; NaN for anything that is no number above 0."""
    return float(value) if numbers([value]) and 0 < value < 1e12 else math.nan


def read_outline(value: Any) -> tuple[Sequence[Sequence[float]] | Mapping[str, Any] | None, FAULT | None]:
    """An object's rings of x, y, x, y, ... or its compressed run-length code; None where it has no outline.

    Returns:
        The outline and its fault: an object whose outline is of no use has none. A ring of fewer than 3 points is left
        out where others remain.
    """
    if isinstance(value, Mapping) and value:
        code = compress_code(value)
        return code, None if code else ("annotation_invalid", "a run-length code has no size that its counts fill")
    if not value:
        return None, None
    if not (isinstance(value, list) and all(isinstance(ring, list) for ring in value)):
        return None, ("annotation_invalid", "the segmentation is neither a list of polygons nor a run-length code")
    rings = [ring for ring in value if ring]
    found = [numbers(ring) for ring in rings]
    if any(ring is None or len(ring) % 2 for ring in found):
        return None, ("annotation_invalid", "an outline does not consist of pairs of numbers")
    kept = [ring for ring in found if ring and len(ring) >= 6]
    short = next(
        (("polygon_short", f"an outline has {len(ring) // 2} points") for ring in rings if len(ring) < 6), None
    )
    return kept or None, short


def compress_code(code: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A run-length code with compressed counts; None if they don't fill its size."""
    from pycocotools import mask

    size, counts = code.get("size"), code.get("counts")
    sides = [pixels(side) for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or None in sides or (area := math.prod(sides)) > MOST:  # type: ignore[arg-type]
        return None
    if isinstance(counts, str):
        encoded = counts.encode("utf-8", "surrogatepass")
        found = decode_runs(encoded)
        return None if found is None or found.sum() != area else {"size": sides, "counts": encoded}
    lengths = [whole(count) for count in counts] if isinstance(counts, list) else []
    if any(length is None or length < 0 for length in lengths) or sum(lengths) != area:  # type: ignore[arg-type]
        return None
    packed: Mapping[str, Any] = mask.frPyObjects({"size": sides, "counts": lengths}, *sides)
    return packed


def decode_runs(counts: bytes) -> np.ndarray | None:
    """The lengths of the runs in a compressed code, int64 (R,); None if it is none.

    pycocotools reads beyond the end of a damaged code.
    """
    if not CODE.fullmatch(counts):
        return None
    values = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(values < 32)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    shifts = 5 * (np.arange(len(values)) - np.repeat(first, lengths))
    runs = np.add.reduceat((values & 31) << shifts, first)
    runs -= np.where(values[last] & 16, 1 << 5 * lengths, 0)  # two's complement
    for start in (1, 2):  # from the fourth on, each is the difference from the last but one
        runs[start::2] = np.cumsum(runs[start::2])
    return runs if (runs >= 0).all() else None


def project_category(categories: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The category that Roboflow adds: it has the id 0 and the project's name, which is the others' supercategory."""
    name = text(categories[0].get("name")) if 0 in categories and len(categories) > 1 else None
    others = [entry.get("supercategory") for number, entry in categories.items() if number != 0]
    own = categories[0].get("supercategory") if name else None
    return 0 if name and own in (None, "none", "") and all(other == name for other in others) else None
