"""Checks of annotated images for `src.kit.checks`: boxes, outlines and classes in COCO files and YOLO labels."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from src.kit.checks import Entry, Facts, Finding, ImageFiles, Region
from src.kit.config import UserError
from src.kit.loading import find_images, walk
from src.kit.scenes import COCO_CLASSES, find_yolo_splits, is_coco, is_yolo, read_classes
from src.kit.scenes_checks.coco import CocoFolder, Outlines, box_faults, gap

__all__ = ["CocoFolder", "YoloFolder", "find_checker"]

FARTHEST = 2.0  # larger coordinates are pixels, not fractions of the image
TASKS = ("detection", "segmentation", "instance_segmentation")


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
            for path in find_images(images):
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


def find_checker(cfg: DictConfig) -> type[ImageFiles] | None:
    """The checker of an annotated data set. One of your own is recognised by its files."""
    if cfg.data.name in FOLDERS:
        return FOLDERS[cfg.data.name]
    root = Path(cfg.data.get("root") or ".").expanduser()
    if cfg.get("task") not in TASKS:
        return None
    return CocoFolder if is_coco(root) else YoloFolder if is_yolo(root) else None
