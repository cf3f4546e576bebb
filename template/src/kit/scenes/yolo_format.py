"""YOLO's format: a text file per image, a line per object, coordinates as fractions of the image.

A line is `class cx cy w h` (a box), or `class x1 y1 x2 y2 x3 y3 ...` (an outline of at least 3 points). Where data.yaml
has `kpt_shape: [points, values of each]`, a box is followed by keypoints, which are left out.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.kit.config import UserError
from src.kit.loading import find_images, refuse_file
from src.kit.scenes.annotations import ADVICE, Annotations, Outline, Record, extent, rasterise
from src.kit.scenes.coco_entries import shown, text, whole
from src.kit.scenes.format_files import by_split, subfolders
from src.kit.scenes.samples import Scenes

FARTHEST = 2.0  # rounding or a careless crop may push a fraction over the edge, but not beyond this
MOST_KEYPOINTS = 10_000
TEXTS: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # reads every value as a text
KEYPOINTS = (
    "this looks like a box with the keypoints of a pose label: add their shape to data.yaml, such as "
    "kpt_shape: [17, 3], and only the boxes are read"
)


def is_yolo(root: Path) -> bool:
    """Whether a folder holds YOLO labels."""
    return (root / "data.yaml").is_file()


def find_yolo_splits(root: Path) -> dict[str, tuple[Path, Path]]:
    """Find each split's images and labels: images/<split> and labels/<split>, or <split>/images and /labels."""
    splits = {
        split: (path, root / "labels" / path.name) for split, path in by_split(subfolders(root / "images")).items()
    }
    outer = by_split(path for path in subfolders(root) if (path / "images").is_dir())
    splits = splits or {split: (path / "images", path / "labels") for split, path in outer.items()}
    if "train" not in splits:
        raise UserError(
            f"{root} holds no YOLO data set: put the images in {root / 'images' / 'train'} and the text files in "
            f"{root / 'labels' / 'train'} (and the same for val and test), or choose another folder."
        )
    return splits


def read_header(root: Path) -> dict[str, Any]:
    """data.yaml with all values as texts, which `names: [yes, no, 001]` are meant as; {} if it holds no keys."""
    refuse_file(root)
    path = root / "data.yaml"
    try:
        content = yaml.load(path.read_text("utf-8-sig"), TEXTS)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: write the class names into it, such as names: [cat, dog].") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())[:300]}.") from error
    return content if isinstance(content, dict) else {}


def read_classes(root: Path) -> tuple[str, ...]:
    """The `names` of data.yaml, a list or a mapping of 0, 1, 2, ... to names.

    Raises:
        UserError: there is no data.yaml, or its names are not texts.
    """
    names = read_header(root).get("names")
    if isinstance(names, dict):
        numbered = {whole(number): name for number, name in names.items() if isinstance(number, str)}
        complete = len(numbered) == len(names) and numbered.keys() == set(range(len(names)))
        names = [numbered[number] for number in range(len(names))] if complete else None
    if not isinstance(names, list) or not names or not all(text(name) is not None for name in names):
        raise UserError(
            f"{root / 'data.yaml'} must have `names`, a list of the class names or a mapping from 0, 1, 2, ... to them."
        )
    return tuple(names)


def read_keypoints(root: Path) -> int:
    """How many numbers follow each box: those of data.yaml's `kpt_shape`, such as [17, 3]; 0 without it.

    Raises:
        UserError: it is something else.
    """
    shape = read_header(root).get("kpt_shape")
    if shape in (None, "", "null", "~"):
        return 0
    sides = [whole(side) for side in shape] if isinstance(shape, list) else []
    points, values = sides if len(sides) == 2 else (None, None)
    if points is None or values not in (2, 3) or not 0 < points <= MOST_KEYPOINTS:
        raise UserError(f"{root / 'data.yaml'}: kpt_shape must be [points, 2] or [points, 3], not {shown(shape)}.")
    return points * values


def read_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder."""
    classes, keypoints = read_classes(root), read_keypoints(root)
    return {split: read_yolo(*paths, classes, keypoints) for split, paths in find_yolo_splits(root).items()}


def read_yolo(images: Path, labels: Path, classes: Sequence[str], keypoints: int = 0) -> Scenes:
    """Read the images of a folder with the label files of the same names in another.

    An image without a label file, or with an empty one, has no objects. The box of an outline is its extent.

    Args:
        keypoints: how many numbers follow each box, as `read_keypoints` says.

    Raises:
        UserError: names the file and the line: an unknown class number, neither 5 nor at least 7 numbers, coordinates
            that aren't fractions, or keypoints of which data.yaml says nothing.
    """
    if not labels.is_dir():
        raise UserError(f"{labels} does not exist: it must hold the label files of the images in {images}.")
    annotations = Annotations()
    annotations.class_ids = {number: number for number in range(len(classes))}
    poses = Poses()
    for path in find_images(images):
        image = annotations.add_image(path, path.stem)
        file = (labels / path.relative_to(images)).with_suffix(".txt")
        try:
            lines = file.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"{file} is no text file: {error}.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            label, values, fault = parse_line(line, keypoints)
            where = f"{file}, line {number}"
            if label is not None and label >= len(classes):
                fault = f"the class is {label}, but there are {len(classes)} classes, numbered from 0"
            if fault:
                raise UserError(f"{where}: {fault}. {ADVICE}")
            poses.add(values, where)
            box, outline = box_of(values)
            annotations.add_object(image, box, label or 0, outline=outline, where="" if outline else where)
    if found := poses.fault():
        raise UserError(f"{found}.")
    return Scenes(annotations.finish(labels), classes)


def parse_line(line: str, keypoints: int = 0) -> tuple[int | None, list[float], str]:
    """The class number (None for something else), the 4 numbers of a box or those of an outline, and what is wrong."""
    name, *words = line.split()
    label = class_number(name)
    try:
        values = [float(word) for word in words]
    except ValueError:
        return label, [], f"{line[:80]!r} must be a class number and coordinates"
    if label is None:
        return None, values, f"{name[:20]!r} is no class number"
    count = len(values)
    if keypoints and count == 4 + keypoints:
        values = values[:4]
    elif keypoints and count != 4:
        return label, [], f"{count} numbers follow the class, but data.yaml's kpt_shape asks for 4 + {keypoints}"
    elif count != 4 and (count < 6 or count % 2):
        hint = "; " + KEYPOINTS if len(Poses.fitting(values)) else "; a fifth is a confidence" if count == 5 else ""
        return label, [], f"{count} coordinates, where a box has 4 and an outline x and y of at least 3 points{hint}"
    if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in values):
        return label, [], f"{line[:80]!r} has coordinates that are no fractions of the image: divide pixels by its size"
    return label, values, ""


def class_number(word: str) -> int | None:
    """The number in 3 and 3.0, which NumPy writes; None for anything else."""
    try:
        value = float(word)
    except ValueError:
        return None
    return int(value) if value.is_integer() and 0 <= value < 1e9 else None


def box_of(values: Sequence[float]) -> tuple[list[float], list[list[float]] | None]:
    """The box (x1, y1, x2, y2) and the outline of a line's numbers."""
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2], None
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])], [list(values)]


class Poses:
    """Notice labels that are boxes with keypoints although data.yaml has no `kpt_shape`: they would pass as outlines.

    In all of them, the numbers after the first four are points in the box of these four, and a third number of each is
    a visibility of 0, 1 or 2.
    """

    def __init__(self) -> None:
        self.dimensions = {2, 3}  # numbers of a point that fit all lines so far
        self.lines, self.points = 0, 0
        self.first = ""

    @staticmethod
    def fitting(values: Sequence[float]) -> set[int]:
        """How many numbers a point may have if the line is a box with keypoints."""
        x, y, width, height, *rest = values if len(values) > 5 else (0, 0, 0, 0)
        found = set()
        for size in (2, 3):
            points = [rest[start : start + size] for start in range(0, len(rest), size)]
            inside = (
                len(point) == size
                and (size == 2 or point[2] in (0, 1, 2))
                and (
                    (abs(point[0] - x) <= width / 2 + 0.02 and abs(point[1] - y) <= height / 2 + 0.02) or not any(point)
                )
                for point in points
            )
            if points and all(inside):
                found.add(size)
        return found

    def add(self, values: Sequence[float], where: str) -> None:
        """Look at one line."""
        if self.dimensions:
            self.dimensions &= self.fitting(values)
            self.lines, self.points = self.lines + 1, self.points + len(values) // 3 - 1
            self.first = self.first or where

    def fault(self) -> str:
        """What is wrong, "" for nothing. A few lines may look so by chance."""
        sure = (3 in self.dimensions and self.points >= 4) or (2 in self.dimensions and self.lines >= 5)
        return f"{self.first}: {KEYPOINTS}" if sure else ""


def image_folder(root: Path, split: str) -> Path:
    """The folder for the images of a split."""
    return root / "images" / split


def write_split(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
    """Write a split's label files, with outlines if the data set has them, and count what was lost.

    Args:
        entries: the file name of each image, and its record in pixels.
    """
    lost: Counter[str] = Counter()
    for name, record in entries:
        lines = []
        for row, label in enumerate(record.labels):
            if record.crowd[row]:
                lost["crowd regions left out, which YOLO's format does not know"] += 1
                continue
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in coordinates_of(record, row, lost))]))
        path = root / "labels" / split / Path(name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return lost


def coordinates_of(record: Record, row: int, lost: Counter[str]) -> np.ndarray:
    """An object's outline or, without one, its box: fractions of the image."""
    assert record.size is not None
    width, height = record.size
    if record.outlines is not None:
        outline = record.outlines[row]
        ring = one_ring(outline, height, width)
        if len(ring) >= 3:
            if isinstance(outline, Mapping):
                lost["run-length codes traced as outlines, without their holes"] += 1
            elif len(outline) > 1:
                lost["outlines of several parts joined into one"] += 1
            return (ring / [width, height]).clip(0, 1).ravel()
        lost["empty outlines replaced by boxes"] += 1
    left, top, right, bottom = record.boxes[row].astype(float) / np.tile([width, height], 2)
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def write_classes(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write data.yaml: the class names, and the folders for other tools."""
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(classes))}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (root / "data.yaml").write_text(text, "utf-8")


def one_ring(outline: Outline, height: int, width: int) -> np.ndarray:
    """Make one ring (P, 2) of an outline: a line to and fro joins its parts, and holes are filled."""
    rings = trace(rasterise(outline, height, width)) if isinstance(outline, Mapping) else list(outline)
    if not rings:
        return np.empty((0, 2), np.float32)
    joined = rings[0]
    for ring in rings[1:]:
        distances = np.linalg.norm(joined[:, None] - ring[None], axis=2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return joined


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the outer edges of a mask bool (H, W) as rings float32 (P, 2), to within a sixth of a pixel."""
    import cv2

    if not mask.any():
        return []
    rows, columns = extent(mask)
    # OpenCV gives the middles of the outermost pixels: of pixels a third as large they are close to the edge
    large = np.kron(mask[rows, columns], np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corner = np.array([columns.start, rows.start], np.float32)
    return [(ring.reshape(-1, 2).astype(np.float32) + 0.5) / 3 + corner for ring in contours if len(ring) > 2]
