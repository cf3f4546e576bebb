"""Parts of COCO and YOLO folders, written in the format that they have: nothing of an annotation is lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.scenes.formats import coco, coco_layout, yolo
from src.kit.scenes.formats.json_stream import stream

IDS = {"images": "id", "annotations": "image_id"}  # where an entry names its image
Parts = tuple[np.ndarray, tuple[str, ...], Callable[[Path, str, np.ndarray], None]]


def is_coco(root: Path) -> bool:
    """Whether a folder holds COCO annotations."""
    return any((root / "annotations").glob("*.json")) or any(root.glob(f"*/{coco_layout.BESIDE}"))


def is_yolo(root: Path) -> bool:
    """Whether a folder holds YOLO labels."""
    return (root / "data.yaml").is_file()


def coco_parts(root: Path) -> Parts:
    """Sets of classes bool (N, K) of a COCO folder's training images, the class names, and what writes some of them."""
    file, images, class_maps = coco_layout.find_coco_splits(root)["train"]
    scenes = coco.read(file, images, class_maps)

    def write(folder: Path, name: str, chosen: np.ndarray) -> None:
        records = [scenes.record(int(index)) for index in chosen]
        kept = {record.image_id for record in records}
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        for section, entry in stream(file):
            if section == "categories" or (section in IDS and entry[IDS[section]] in kept):
                content[section].append(entry)
        for record in records:
            copy(record.path, folder / name / record.path.relative_to(images))
            if record.class_map is not None and class_maps is not None and record.class_map.is_file():
                copy(record.class_map, folder / "class_maps" / name / record.class_map.relative_to(class_maps))
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{name}.json").write_text(json.dumps(content), "utf-8")

    return scenes.has_classes(), scenes.classes, write


def yolo_parts(root: Path) -> Parts:
    """The same for a YOLO folder."""
    images, labels = yolo.find_yolo_splits(root)["train"]
    classes = yolo.read_classes(root)
    scenes = yolo.read(images, labels, classes)

    def write(folder: Path, name: str, chosen: np.ndarray) -> None:
        for record in (scenes.record(int(index)) for index in chosen):
            place = record.path.relative_to(images)
            copy(record.path, folder / "images" / name / place)
            if (text := (labels / place).with_suffix(".txt")).is_file():
                copy(text, (folder / "labels" / name / place).with_suffix(".txt"))
        (folder / "labels" / name).mkdir(parents=True, exist_ok=True)  # where no image has a label file
        copy(root / "data.yaml", folder / "data.yaml")

    return scenes.has_classes(), classes, write


def copy(source: Path, target: Path) -> None:
    """Copy a file into a folder that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
