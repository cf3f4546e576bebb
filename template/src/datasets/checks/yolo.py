"""Check YOLO labels line by line; the reader, which refuses the first fault, is `src/datasets/formats/yolo.py`."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from src.datasets.checks import Box, Finding
from src.datasets.checks.annotations import box_faults, gap
from src.datasets.checks.files import Entry, Source, walk
from src.datasets.checks.images import Facts
from src.datasets.formats.layout import list_images
from src.datasets.formats.yolo import find_splits, read_classes
from src.utils.errors import UserError

FARTHEST = 2.0  # coordinates beyond are no fractions but pixels


def coco128(root: Path) -> "YoloFolder":
    """COCO128, which has no data.yaml."""
    from src.datasets.coco128 import CLASSES

    return YoloFolder(root, CLASSES)


class YoloFolder(Source):
    """`yolo_folder`, and `coco128` with its own `classes`."""

    def __init__(self, root: Path, classes: Sequence[str] = ()) -> None:
        super().__init__(root)
        self.label_files: dict[str, str] = {}  # image -> where its labels belong
        self.classes = classes
        try:
            self.classes = self.classes or read_classes(root)
        except UserError as error:
            self.add("structure", "data.yaml", str(error))
        for split, (images, labels) in find_splits(root).items():
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

    def check(self, facts: dict[str, Facts]) -> None:
        """Read every label file."""
        used: set[int] = set()
        owners: dict[str, list[str]] = defaultdict(list)
        for entry in self.entries:
            owners[self.label_files[entry.path]].append(entry.path)
            used |= self.check_image(entry, facts[entry.path])
        for file, images in owners.items():
            if len(images) > 1:
                self.add("duplicate_id", images[1], f"{images[0]} and {images[1]} have the same label file {file}.")
        self.check_balance()
        if not self.classes and (missing := gap([*used, 0])):
            self.add("class_gap", ".", f"Of the class numbers from 0 to {max(used)}, {missing}.")

    def check_image(self, entry: Entry, facts: Facts) -> set[int]:
        """Check one label file and return its class numbers."""
        file = self.label_files[entry.path]
        try:
            lines = (self.root / file).read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            self.add("unlabelled", entry.path, f"There is no {file}.")
            return set()
        except (OSError, UnicodeDecodeError) as error:
            self.add("annotation_unreadable", entry.path, f"{file} is no text file: {error}.")
            return set()
        used = set()
        for place, line in enumerate(lines, 1):
            if not line.strip():
                continue
            number, faults = check_line(line, facts.shown if facts.width else (1, 1))
            if number is not None and self.classes and number >= len(self.classes):
                faults.append(
                    ("class_unknown", f"class {number}, but there are {len(self.classes)} classes from 0", None)
                )
            elif number is not None:
                used.add(number)
                self.counts[entry.split][self.classes[number] if self.classes else str(number)] += 1
            for kind, sentence, box in faults:
                self.findings.append(Finding(kind, entry.path, f"{file}, line {place}: {sentence}.", box=box))
        return used

    def labels_of(self, path: str) -> list[str]:
        """The image's label file, where there is one."""
        file = self.label_files.get(path, "")
        return [file] if (self.root / file).is_file() else []


def check_line(line: str, size: tuple[int, int]) -> tuple[int | None, list[tuple[str, str, Box | None]]]:
    """The class number of a line, None where it has none, and its faults with the box in pixels."""
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
