"""Checks of annotated images for `src.kit.checks`: boxes, outlines and classes in COCO files and YOLO labels."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.kit.checks import KINDS, Entry, Facts, Finding, ImageFiles, Kind, Region, walk
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, find_yolo_splits, is_coco, is_yolo, list_images, read_classes
from src.kit.scenes_checks.coco import CocoFolder

__all__ = ["CocoFolder", "YoloFolder", "find_checker"]

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
    outline_missing=Kind(
        "warning", "Some objects without an outline", "Outline them too. Otherwise no outline is used."
    ),
    class_twice=Kind("warning", "Duplicate class names", "Rename one: results can't tell them apart."),
    unlabelled=Kind("warning", "Images without labels", "Add labels, unless the image is meant as background."),
    label_without_image=Kind("warning", "Labels without an image", "Add the image or delete the label file."),
    class_gap=Kind("warning", "Gaps in class ids", "Number the classes 0, 1, 2, ... without gaps."),
    category_gap=Kind("note", "Gaps in category ids", "They are renumbered when read."),
    rotated=KINDS["rotated"]._replace(advice="Annotations must refer to the image as shown, not as stored."),
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


def numbers(values: Any) -> list[float] | None:
    """The values if they are a list of finite numbers, else None."""
    if not isinstance(values, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in values
    ):
        return None
    try:
        found = [float(value) for value in values]
    except OverflowError:
        return None
    return found if all(map(math.isfinite, found)) else None


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


def polygon_faults(rings: Sequence[Any]) -> Iterator[Fault]:
    """Faults of an outline's rings, each x, y, x, y, ..."""
    for ring in rings:
        points = numbers(ring)
        if points is None or len(points) % 2:
            yield "annotation_invalid", "an outline does not consist of pairs of numbers"
        elif len(points) < 6:
            yield "polygon_short", f"an outline has {len(points) // 2} points"


def brief(value: Any) -> str:
    """A value for a message, at most 80 letters."""
    return repr(value)[:80]


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


FARTHEST = 2.0  # larger coordinates are pixels, not fractions of the image


class YoloFolder(ImageFiles):
    """Check a folder with YOLO labels."""

    unit = "objects"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.label_files: dict[str, str] = {}  # image -> its label file, which may not exist
        self.outlines: dict[str, Outlines] = defaultdict(Outlines)  # by split
        try:
            self.classes = self.read_classes()
        except UserError as error:
            self.add("structure", "data.yaml", str(error))
        for name, times in Counter(self.classes).items():
            if times > 1:
                self.add("class_twice", "data.yaml", f"{times} classes have the name {name[:80]!r}.")
        for split, (images, labels) in find_yolo_splits(root).items():
            for path in list_images(images):
                name = self.relative(path)
                self.entries.append(Entry(name, split))
                self.label_files[name] = self.relative((labels / path.relative_to(images)).with_suffix(".txt"))
            self.add_strangers(images)
            expected = set(self.label_files.values())
            for file in walk(labels):
                if file.endswith(".txt") and (name := self.relative(labels / file)) not in expected:
                    self.add("label_without_image", name, "No image has this name.")
            self.counts[split].update(dict.fromkeys(self.classes, 0))

    def read_classes(self) -> Sequence[str]:
        """The class names."""
        return read_classes(self.root)

    def check(self, facts: Mapping[str, Facts]) -> None:
        """Check every label file."""
        used: set[int] = set()
        owners: dict[str, list[str]] = defaultdict(list)
        for entry in self.entries:
            owners[self.label_files[entry.path]].append(entry.path)
            used |= self.check_image(entry, facts[entry.path])
        for file, images in owners.items():
            if len(images) > 1:
                self.add("duplicate_id", images[1], f"{images[0]} and {images[1]} have the same label file {file}.")
        for split, outlines in self.outlines.items():
            for kind, sentence in outlines.faults(self.task):
                self.add(kind, split, f"{sentence}.")
        self.check_balance()
        if not self.classes and (missing := gap([*used, 0])):
            self.add("class_gap", ".", f"Of the class numbers from 0 to {max(used)}, {missing}.")

    def check_image(self, entry: Entry, facts: Facts) -> set[int]:
        """Check one label file and return its class numbers."""
        file = self.label_files[entry.path]
        try:
            lines = (self.root / file).read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            self.add("unlabelled", entry.path, f"{file} does not exist.")
            return set()
        except (OSError, UnicodeDecodeError) as error:
            self.add("annotation_unreadable", entry.path, f"{file} is not a text file: {error}.")
            return set()
        used = set()
        for row, line in enumerate(lines, 1):
            if not line.strip():
                continue
            number, faults = line_faults(line, facts.shown if facts.width else (1, 1))
            if number is not None and self.classes and number >= len(self.classes):
                faults.append(
                    ("class_unknown", f"class {number}, but there are {len(self.classes)} classes from 0", None)
                )
            elif number is not None:
                used.add(number)
                self.counts[entry.split][self.classes[number] if self.classes else str(number)] += 1
            if (words := len(line.split())) >= 5:  # a class number and a box; an outline has more
                self.outlines[entry.split].count(words > 5, f"{file}, line {row}")
            for kind, sentence, box in faults:
                self.findings.append(Finding(kind, entry.path, f"{file}, line {row}: {sentence}.", region=box))
        return used

    def companions(self, path: str) -> list[str]:
        """The image's label file if it exists."""
        file = self.label_files.get(path, "")
        return [file] if (self.root / file).is_file() else []


class Coco128Folder(YoloFolder):
    """COCO128, which has no data.yaml."""

    def read_classes(self) -> Sequence[str]:
        """The 80 classes of COCO."""
        return COCO_CLASSES


def line_faults(line: str, size: tuple[int, int]) -> tuple[int | None, list[tuple[str, str, Region | None]]]:
    """A line's class number, or None, and its faults with the box in pixels; `size` is the image's width and height."""
    name, *words = line.split()
    number = int(name) if name.isdecimal() and len(name) < 10 else None
    try:
        values = [float(word) for word in words]
    except ValueError:
        return number, [("annotation_invalid", f"{line[:80]!r} is not a class number followed by coordinates", None)]
    faults: list[tuple[str, str, Region | None]] = []
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


FOLDERS: dict[str, type[ImageFiles]] = {
    "coco128": Coco128Folder,
    "coco2017": CocoFolder,
    "coco_folder": CocoFolder,
    "digit_scenes": CocoFolder,
    "yolo_folder": YoloFolder,
}
TASKS = ("detection", "segmentation", "instance_segmentation")


def find_checker(cfg: DictConfig) -> type[ImageFiles] | None:
    """The checker of an annotated data set. One of your own is recognised by its files."""
    if cfg.data.name in FOLDERS:
        return FOLDERS[cfg.data.name]
    root = Path(cfg.data.get("root") or ".").expanduser()
    if cfg.get("task") not in TASKS:
        return None
    return CocoFolder if is_coco(root) else YoloFolder if is_yolo(root) else None
