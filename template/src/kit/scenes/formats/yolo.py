"""YOLO's format: a text file for each image, a line for each object, coordinates as fractions of the image as shown.

A line is `class cx cy w h` (a box), or `class x1 y1 x2 y2 x3 y3 ...` (an outline of at least 3 points).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from src.kit.config import UserError
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.formats.layout import by_split, folders, list_images
from src.kit.scenes.samples import Scenes

FARTHEST = 2.0  # a coordinate beyond is not a fraction that rounding or a careless crop pushed over the edge


def find_yolo_splits(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> its folders of images and labels: images/<split> and labels/<split>, or <split>/images and /labels."""
    found = {split: (path, root / "labels" / path.name) for split, path in by_split(folders(root / "images")).items()}
    outer = by_split(path for path in folders(root) if (path / "images").is_dir())
    found = found or {split: (path / "images", path / "labels") for split, path in outer.items()}
    if "train" not in found:
        raise UserError(
            f"{root} holds no YOLO data set: put the images in {root / 'images' / 'train'} and the text files in "
            f"{root / 'labels' / 'train'} (and the same for val and test), or choose another folder."
        )
    return found


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


def read(images: Path, labels: Path, classes: Sequence[str]) -> Scenes:
    """Read the images of a folder with the label files of the same names in another.

    An image without a label file, or with an empty one, has no objects. The box of an outline is its extent.

    Raises:
        UserError: names the file and the line: no class number of `classes`, not 5 or at least 7 numbers, or
            coordinates that are no fractions.
    """
    if not labels.is_dir():
        raise UserError(f"{labels} does not exist: it must hold the label files of the images in {images}.")
    annotations = Annotations()
    annotations.class_ids = {number: number for number in range(len(classes))}
    for path in list_images(images):
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
                label, box, outline = parse(line, len(classes), f"{file}, line {number}")
                annotations.add_object(image, box, label, outline=outline)
    return Scenes(annotations.finish(labels), classes)


def parse(line: str, classes: int, where: str) -> tuple[int, list[float], list[list[float]] | None]:
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
