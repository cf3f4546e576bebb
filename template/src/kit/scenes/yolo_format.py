"""YOLO's format: a text file per image, a line per object, coordinates as fractions of the image.

A line is `class cx cy w h` (a box), or `class x1 y1 x2 y2 x3 y3 ...` (an outline of at least 3 points).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from src.kit.config import UserError
from src.kit.loading import find_images
from src.kit.scenes.annotations import Annotations, Outline, Record, extent, rasterise
from src.kit.scenes.format_files import by_split, subfolders
from src.kit.scenes.samples import Scenes

FARTHEST = 2.0  # rounding or a careless crop may push a fraction over the edge, but not beyond this


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


def read_classes(root: Path) -> tuple[str, ...]:
    """The `names` of data.yaml, a list or a mapping of 0, 1, 2, ... to names."""
    path = root / "data.yaml"
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: write the class names into it, such as names: [cat, dog].") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} must have `names`, a list of the class names or a mapping from 0, 1, 2, ... to them.")
    return tuple(map(str, names))


def read_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder."""
    classes = read_classes(root)
    return {split: read_yolo(*paths, classes) for split, paths in find_yolo_splits(root).items()}


def read_yolo(images: Path, labels: Path, classes: Sequence[str]) -> Scenes:
    """Read the images of a folder with the label files of the same names in another.

    An image without a label file, or with an empty one, has no objects. The box of an outline is its extent.

    Raises:
        UserError: names the file and the line: an unknown class number, neither 5 nor at least 7 numbers, or
            coordinates that aren't fractions.
    """
    if not labels.is_dir():
        raise UserError(f"{labels} does not exist: it must hold the label files of the images in {images}.")
    annotations = Annotations()
    annotations.class_ids = {number: number for number in range(len(classes))}
    for path in find_images(images):
        image = annotations.add_image(path, path.stem)
        file = (labels / path.relative_to(images)).with_suffix(".txt")
        try:
            lines = file.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is no text file: {error}.") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                label, box, outline = parse_line(line, len(classes), f"{file}, line {number}")
                annotations.add_object(image, box, label, outline=outline)
    return Scenes(annotations.finish(labels), classes)


def parse_line(line: str, classes: int, where: str) -> tuple[int, list[float], list[list[float]] | None]:
    """Class number, box (x1, y1, x2, y2) and outline of one line; `where` begins every message."""
    name, *words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise UserError(f"{where}: {line[:80]!r} must be a class number and coordinates.") from error
    if not (name.isdecimal() and int(name) < classes):
        raise UserError(f"{where} has the class {name}, but there are {classes} classes, numbered from 0.")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f"{where} has {len(values)} coordinates: a box has 4 (center and size), an outline x and y of at least "
            "3 points."
        )
    if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in values):
        raise UserError(f"{where} has coordinates that are no fractions of the image: divide pixels by its size.")
    if len(values) == 4:
        x, y, width, height = values
        return int(name), [x - width / 2, y - height / 2, x + width / 2, y + height / 2], None
    return int(name), [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])], [values]


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
