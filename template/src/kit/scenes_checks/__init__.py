"""Checks of annotated images for `src.kit.checks`: boxes, outlines and classes in COCO files and YOLO labels."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from src.kit.checks import Entry, Facts, Finding, ImageFiles, Region
from src.kit.config import UserError
from src.kit.loading import find_images, walk
from src.kit.scenes import (
    COCO_CLASSES,
    Poses,
    box_of,
    find_yolo_splits,
    is_coco,
    is_masks,
    is_yolo,
    parse_line,
    read_classes,
    read_keypoints,
)
from src.kit.scenes_checks.class_maps import MaskFolder
from src.kit.scenes_checks.coco import CocoFolder
from src.kit.scenes_checks.kinds import Outlines, Sides, box_faults, gap

__all__ = ["CocoFolder", "MaskFolder", "YoloFolder", "find_checker"]

TASKS = ("detection", "segmentation", "instance_segmentation")
LISTS = ("classes.txt", "predefined_classes.txt")  # names that labelling tools write beside the labels


class YoloFolder(ImageFiles):
    """Check a folder with YOLO labels."""

    unit = "objects"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.label_files: dict[str, str] = {}  # image -> its label file, which may not exist
        self.outlines: dict[str, Outlines] = defaultdict(Outlines)  # by split
        self.sides: dict[str, Sides] = defaultdict(Sides)
        self.poses: dict[str, Poses] = defaultdict(Poses)
        self.keypoints = 0  # numbers after each box
        try:
            self.classes = self.read_classes()
            self.keypoints = read_keypoints(root) if is_yolo(root) else 0
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
                name = self.relative(labels / file)
                if file.endswith(".txt") and name not in expected and Path(file).name not in LISTS:
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
        for split, sides in self.sides.items():
            for kind, sentence in sides.faults(self.image_size):
                self.add(kind, split, f"{sentence}.")
        for split, poses in self.poses.items():
            if found := poses.fault():
                self.add("annotation_invalid", split, f"{found}.")
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
            number, values, faults = line_faults(line, facts.shown if facts.width else (1, 1), self.keypoints)
            if number is not None and self.classes and number >= len(self.classes):
                sentence = f"the class is {number}, but there are {len(self.classes)} classes, numbered from 0"
                faults.append(("class_unknown", sentence, None))
            elif number is not None:
                used.add(number)
                self.counts[entry.split][self.classes[number] if self.classes else str(number)] += 1
            if values:
                self.outlines[entry.split].count(len(values) > 4, f"{file}, line {row}")
                unit, _ = box_of(values)
                self.sides[entry.split].count(pixels_of(unit, facts.shown), facts.shown, f"{file}, line {row}")
                self.poses[entry.split].add(values, f"{file}, line {row}")
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


def pixels_of(box: Sequence[float], size: tuple[int, int]) -> Region:
    """A box in fractions of an image of (width, height) in pixels."""
    return box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]


def line_faults(
    line: str, size: tuple[int, int], keypoints: int
) -> tuple[int | None, list[float], list[tuple[str, str, Region | None]]]:
    """A line's class number, or None, its coordinates, none if they are wrong, and its faults with the box in pixels.

    `size` is the image's width and height, `keypoints` how many numbers follow a box.
    """
    number, values, fault = parse_line(line, keypoints)
    if fault:
        short = len(line.split()) == 3
        kind = "class_unknown" if number is None and values else "polygon_short" if short else "annotation_invalid"
        return number, [], [(kind, fault, None)]
    box = pixels_of(box_of(values)[0], size)
    return number, values, [(*found, box) for found in box_faults(box, *size)]


FOLDERS: dict[str, type[ImageFiles]] = {
    "coco128": Coco128Folder,
    "coco2017": CocoFolder,
    "coco_folder": CocoFolder,
    "digit_scenes": CocoFolder,
    "mask_folder": MaskFolder,
    "yolo_folder": YoloFolder,
}


def find_checker(cfg: DictConfig) -> type[ImageFiles] | None:
    """The checker of an annotated data set. One of your own is recognised by its files."""
    if cfg.data.name in FOLDERS:
        return FOLDERS[cfg.data.name]
    root = Path(cfg.data.get("root") or ".").expanduser()
    if cfg.get("task") not in TASKS:
        return None
    return CocoFolder if is_coco(root) else YoloFolder if is_yolo(root) else MaskFolder if is_masks(root) else None
