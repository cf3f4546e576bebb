"""What can be wrong with a box or an outline, whatever format it came in."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from src.kit.checks import Box

FARTHEST = 2.0  # coordinates beyond are no fractions of an image but pixels
SLACK = 1.0  # pixels by which publishers' rounding may leave the image

NEED_OUTLINES = ("instance_segmentation", "segmentation")  # tasks

Fault = tuple[str, str]  # a finding's kind, and the end of its sentence


class Outlines:
    """How many objects of a split have an outline: training uses them only if every object has one."""

    def __init__(self) -> None:
        self.present = self.missing = 0
        self.first = ""  # of the objects without one

    def count(self, present: bool, where: str) -> None:
        """Count one object; `where` names it."""
        self.present += present
        self.missing += not present
        self.first = self.first or ("" if present else where)

    def faults(self, task: str) -> Iterator[Fault]:
        """What a task would refuse, or what it would not use."""
        verb = "has" if self.missing == 1 else "have"
        said = f"{self.missing:,} of {self.present + self.missing:,} objects {verb} no outline, such as {self.first}"
        if self.missing and task in NEED_OUTLINES:
            yield "outline_needed", f"{said}, and task={task} needs one for every object"
        elif self.missing and self.present:
            yield "outline_missing", f"{said}, so the outlines of the others are not used"


def numbers(values: Any) -> list[float] | None:
    """The values as finite numbers, None where they are anything else."""
    if not isinstance(values, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in values
    ):
        return None
    try:
        found = [float(value) for value in values]
    except OverflowError:
        return None
    return found if all(map(math.isfinite, found)) else None


def box_faults(box: Box, width: float, height: float) -> Iterator[Fault]:
    """Faults of a box in pixels, or in any unit of which the image has `width` x `height`."""
    left, top, right, bottom = box
    shown = ", ".join(f"{value:.6g}" for value in box)
    if right <= left or bottom <= top:
        yield "box_empty", f"the box ({shown}) has no area"
    elif right <= 0 or bottom <= 0 or left >= width or top >= height:
        yield "box_outside", f"the box ({shown}) is outside the image of {width:.6g} x {height:.6g}"
    elif min(left, top) < -SLACK or right > width + SLACK or bottom > height + SLACK:
        yield "box_beyond", f"the box ({shown}) reaches beyond the image of {width:.6g} x {height:.6g}"


def polygon_faults(rings: Sequence[Any]) -> Iterator[Fault]:
    """Faults of an outline: rings of x, y, x, y, ..."""
    for ring in rings:
        points = numbers(ring)
        if points is None or len(points) % 2:
            yield "annotation_invalid", "an outline is not made of pairs of numbers"
        elif len(points) < 6:
            yield "polygon_short", f"an outline has {len(points) // 2} points"


def entry_faults(entry: dict[str, Any], width: float, height: float) -> Iterator[tuple[str, str, Box | None]]:
    """Faults of a COCO annotation's "bbox" (x, y, width, height) and of its "segmentation"."""
    corner = numbers(entry.get("bbox"))
    if corner is None or len(corner) != 4:
        yield "annotation_invalid", f"the bbox is {brief(entry.get('bbox'))} and not four numbers", None
    else:
        box = (corner[0], corner[1], corner[0] + corner[2], corner[1] + corner[3])
        yield from ((*fault, box) for fault in box_faults(box, width, height))
    outline = entry.get("segmentation")
    yield from ((*fault, None) for fault in (polygon_faults(outline) if isinstance(outline, list) else ()))


def line_faults(line: str, size: tuple[int, int]) -> tuple[int | None, list[tuple[str, str, Box | None]]]:
    """The class number of a YOLO label's line, None where it has none, and its faults with the box in pixels."""
    name, *words = line.split()
    number = int(name) if name.isdecimal() and len(name) < 10 else None
    try:
        values = [float(word) for word in words]
    except ValueError:
        return number, [("annotation_invalid", f"{line[:80]!r} is not a class number with coordinates", None)]
    faults: list[tuple[str, str, Box | None]] = []
    if number is None:
        faults.append(("class_unknown", f"{name[:20]!r} is no class number", None))
    if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in values):
        faults.append(("annotation_invalid", f"{line[:80]!r} has coordinates that are no fractions of the image", None))
    elif len(values) == 4:
        (x, y), (width, height) = ((values[i] * size[0], values[i + 1] * size[1]) for i in (0, 2))
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        faults += [(*fault, box) for fault in box_faults(box, *size)]
    elif len(values) < 6 or len(values) % 2:
        kind = "polygon_short" if len(values) == 2 else "annotation_invalid"
        faults.append((kind, f"{len(values)} coordinates, where a box has 4 and an outline at least 6", None))
    else:
        box = tuple(edge(values[i::2]) * size[i] for edge in (min, max) for i in (0, 1))  # type: ignore[assignment]
        faults += [(*fault, box) for fault in box_faults(box, *size)]
    return number, faults


def brief(value: Any) -> str:
    """A value in a message."""
    return repr(value)[:80]


def gap(ids: Sequence[int]) -> str:
    """The ids that are missing between the smallest and the largest, as the end of a sentence; "" where none is."""
    present = set(ids)
    if not present or max(present) - min(present) + 1 == len(present):
        return ""
    missing: list[str] = []
    for number in range(min(present), max(present)):
        if number not in present:
            missing.append(str(number))
        if len(missing) > 10:  # enough to see; an id of a billion must not cost a billion steps
            return f"{', '.join(missing[:10])} and more are missing"
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
