"""What the checks of every format report of annotated images: kinds of findings, boxes, missing outlines, gaps."""

import math
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from src.kit.checks import KINDS, Kind, Region

CELL = 8  # pixels: what the finest grid of the detectors here takes together; a cell holds nothing smaller
OFTEN = 0.05  # of the objects
SLACK = 1.0  # pixels that boxes may reach beyond the image: publishers round
NEED_OUTLINES = ("instance_segmentation", "segmentation")  # tasks

Fault = tuple[str, str]  # a finding's kind, and the end of its sentence

FIX = "Fix the annotation, or move the image away with --quarantine."
KINDS.update(
    annotation_unreadable=Kind("error", "Unreadable annotation files", "Export the file again."),
    annotation_invalid=Kind("error", "Invalid annotations", FIX),
    class_unknown=Kind("error", "Unknown class ids", f"Add the class. {FIX}"),
    duplicate_id=Kind("error", "Duplicate ids", "Renumber the entries: every id must be unique."),
    missing_image=Kind("error", "Annotations of missing images", "Add the images or remove their annotations."),
    size_mismatch=Kind("error", "Image size differs from annotation", "Export the annotations for these files."),
    box_empty=Kind("error", "Boxes without area", FIX),
    box_outside=Kind("error", "Boxes outside the image", FIX),
    polygon_short=Kind("error", "Outlines with fewer than 3 points", FIX),
    outline_needed=Kind("error", "Objects without an outline", "Outline them, or train with task=detection."),
    box_beyond=Kind("warning", "Boxes reaching beyond the image", "They are clipped. Check that they fit."),
    outline_unused=Kind("warning", "Outlines of no use", "Outline the object again, unless its box is enough."),
    outline_beyond=Kind("warning", "Outlines far outside the image", "They are cut off. Check their coordinates."),
    outline_missing=Kind(
        "warning", "Some objects without an outline", "Outline them too. Otherwise no outline is used."
    ),
    objects_small=Kind(
        "warning",
        "Objects too small for the network's grid",
        "Raise data.image_size, or cut the images into tiles: networks hardly find such objects.",
    ),
    objects_few_small=Kind(
        "note", "A few objects too small for the network's grid", "Raise data.image_size if they matter."
    ),
    class_twice=Kind("warning", "Duplicate class names", "Rename one: results can't tell them apart."),
    unlabelled=Kind("warning", "Images without labels", "Add labels, unless the image is meant as background."),
    label_without_image=Kind("warning", "Labels without an image", "Add the image or delete the label file."),
    class_gap=Kind("warning", "Gaps in class ids", "Number the classes 0, 1, 2, ... without gaps."),
    category_gap=Kind("note", "Gaps in category ids", "They are renumbered when read."),
    category_project=Kind("note", "Category that is no class", "It is left out: Roboflow names the project there."),
    rotated=KINDS["rotated"]._replace(advice="Annotations must refer to the image as shown, not as stored."),
)


class Sides:
    """Count the objects of a split that are smaller than a grid cell once their image has the network's size."""

    def __init__(self) -> None:
        self.shares = array("d")  # square root of each box's area, as a share of its image's longer side
        self.smallest, self.first = math.inf, ""

    def count(self, box: Region, size: tuple[float, float], where: str) -> None:
        """Count one object in an image of (width, height), which messages call `where`; faulty boxes don't count."""
        width, height = (min(box[axis + 2], size[axis]) - max(box[axis], 0) for axis in (0, 1))
        if width > 0 and height > 0 and math.isfinite(max(size)):
            self.shares.append(math.sqrt(width * height) / max(size))
            if self.shares[-1] < self.smallest:
                self.smallest, self.first = self.shares[-1], where

    def faults(self, image_size: int) -> Iterator[Fault]:
        """Report the share of small objects: a warning from `OFTEN` on."""
        shares = np.sort(np.frombuffer(self.shares, np.float64))
        small = int(np.searchsorted(shares, CELL / max(1, image_size)))
        if not small or not image_size:
            return
        part = small / len(shares)
        # the size at which only `OFTEN` of them stay too small, in steps of 32 pixels, as networks take them
        needed = 32 * math.ceil(CELL / shares[int(OFTEN * len(shares))] / 32)
        more = f"; data.image_size={needed:,} would leave {OFTEN:.0%}" if part > OFTEN else ""
        yield (
            "objects_small" if part >= OFTEN else "objects_few_small",
            f"{small:,} of {len(shares):,} objects ({part:.1%}) are smaller than a grid cell of {CELL} x {CELL} pixels "
            f"at data.image_size={image_size}, the smallest being {self.first}{more}",
        )


class Outlines:
    """Count the objects of a split with and without an outline. Training needs one for every object, or uses none."""

    def __init__(self) -> None:
        self.present = self.missing = 0
        self.first = ""  # the first object without one

    def count(self, present: bool, where: str) -> None:
        """Count one object, which messages call `where`."""
        self.present += present
        self.missing += not present
        self.first = self.first or ("" if present else where)

    def faults(self, task: str) -> Iterator[Fault]:
        """Report missing outlines: an error if the task needs them, else a warning if some objects have one."""
        verb = "has" if self.missing == 1 else "have"
        counts = f"{self.missing:,} of {self.present + self.missing:,} objects {verb} no outline, such as {self.first}"
        if self.missing and task in NEED_OUTLINES:
            yield "outline_needed", f"{counts}, and task={task} needs one for every object"
        elif self.missing and self.present:
            yield "outline_missing", f"{counts}, so the outlines of the others are not used"


def box_faults(box: Region, width: float, height: float) -> Iterator[Fault]:
    """Faults of a box in an image of `width` x `height`, all in the same unit."""
    left, top, right, bottom = box
    shown = ", ".join(f"{value:.6g}" for value in box)
    if right <= left or bottom <= top:
        yield "box_empty", f"the box ({shown}) has no area"
    elif right <= 0 or bottom <= 0 or left >= width or top >= height:
        yield "box_outside", f"the box ({shown}) is outside the image of {width:.6g} x {height:.6g}"
    elif min(left, top) < -SLACK or right > width + SLACK or bottom > height + SLACK:
        yield "box_beyond", f"the box ({shown}) reaches beyond the image of {width:.6g} x {height:.6g}"


def gap(ids: Sequence[int]) -> str:
    """The ids missing between the smallest and the largest, as the end of a sentence; "" if there are none."""
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
