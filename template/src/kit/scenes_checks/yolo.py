"""Check YOLO labels line by line; the reader, which refuses the first fault, is `src/kit/scenes/formats/yolo.py`."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from src.kit.checks import Entry, Facts, Finding, Source, walk
from src.kit.config import UserError
from src.kit.scenes import COCO_CLASSES, find_yolo_splits, list_images, read_classes
from src.kit.scenes_checks.annotations import Outlines, gap, line_faults


def coco128(root: Path) -> "YoloFolder":
    """COCO128, which has no data.yaml."""
    return YoloFolder(root, COCO_CLASSES)


class YoloFolder(Source):
    """`yolo_folder`, and `coco128` with its own `classes`."""

    def __init__(self, root: Path, classes: Sequence[str] = ()) -> None:
        super().__init__(root)
        self.label_files: dict[str, str] = {}  # image -> where its labels belong
        self.classes = classes
        self.outlines: dict[str, Outlines] = defaultdict(Outlines)  # by split
        try:
            self.classes = self.classes or read_classes(root)
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
            self.add("unlabelled", entry.path, f"There is no {file}.")
            return set()
        except (OSError, UnicodeDecodeError) as error:
            self.add("annotation_unreadable", entry.path, f"{file} is no text file: {error}.")
            return set()
        used = set()
        for place, line in enumerate(lines, 1):
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
            if (words := len(line.split())) >= 5:  # a box has that many, an outline more
                self.outlines[entry.split].count(words > 5, f"{file}, line {place}")
            for kind, sentence, box in faults:
                self.findings.append(Finding(kind, entry.path, f"{file}, line {place}: {sentence}.", box=box))
        return used

    def labels_of(self, path: str) -> list[str]:
        """The image's label file, where there is one."""
        file = self.label_files.get(path, "")
        return [file] if (self.root / file).is_file() else []
