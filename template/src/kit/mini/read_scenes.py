"""Copy a part of a COCO, YOLO or mask folder in its own format, so that nothing of an annotation is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.mini import Original
from src.kit.scenes import (
    find_coco_splits,
    find_mask_splits,
    find_yolo_splits,
    identifier,
    is_coco,
    is_masks,
    is_yolo,
    read_classes,
    read_coco,
    read_keypoints,
    read_masks,
    read_table,
    read_yolo,
    stream,
    table_path,
)

IMAGE_KEYS = {"images": "id", "annotations": "image_id"}  # section -> key with an entry's image


def open_folder(root: Path) -> Original | None:
    """Open a folder of one of the formats with boxes, outlines or masks; None if it is none of them."""
    if is_coco(root):
        return open_coco(root)
    if is_yolo(root):
        return open_yolo(root)
    return open_masks(root) if is_masks(root) and table_path(root) else None


def open_coco(root: Path) -> Original:
    """Open the training images of a COCO folder."""
    file, images, class_maps = find_coco_splits(root)["train"]
    scenes = read_coco(file, images, class_maps)

    def write(folder: Path, name: str, chosen: np.ndarray) -> None:
        records = [scenes.record(int(index)) for index in chosen]
        kept = {record.image_id for record in records}
        content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
        for section, entry in stream(file):
            if section == "categories" or (section in IMAGE_KEYS and identifier(entry[IMAGE_KEYS[section]]) in kept):
                content[section].append(entry)
        for record in records:
            copy_file(record.path, folder / name / record.path.relative_to(images))
            if record.class_map is not None and class_maps is not None and record.class_map.is_file():
                copy_file(record.class_map, folder / "class_maps" / name / record.class_map.relative_to(class_maps))
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{name}.json").write_text(json.dumps(content), "utf-8")

    return scenes.has_classes(), scenes.classes, write


def open_yolo(root: Path) -> Original:
    """Open the training images of a YOLO folder."""
    images, labels = find_yolo_splits(root)["train"]
    classes = read_classes(root)
    scenes = read_yolo(images, labels, classes, read_keypoints(root))

    def write(folder: Path, name: str, chosen: np.ndarray) -> None:
        for record in (scenes.record(int(index)) for index in chosen):
            relative = record.path.relative_to(images)
            copy_file(record.path, folder / "images" / name / relative)
            if (text := (labels / relative).with_suffix(".txt")).is_file():
                copy_file(text, (folder / "labels" / name / relative).with_suffix(".txt"))
        (folder / "labels" / name).mkdir(parents=True, exist_ok=True)  # where no image has a label file
        copy_file(root / "data.yaml", folder / "data.yaml")

    return scenes.has_classes(), classes, write


def open_masks(root: Path) -> Original:
    """Open the training images of a folder with masks."""
    images, masks = find_mask_splits(root)["train"]
    scenes = read_masks(images, masks, read_table(root))

    def write(folder: Path, name: str, chosen: np.ndarray) -> None:
        for record in (scenes.record(int(index)) for index in chosen):
            assert record.class_map is not None
            copy_file(record.path, folder / "images" / name / record.path.relative_to(images))
            copy_file(record.class_map, folder / "masks" / name / record.class_map.relative_to(masks))
        table = table_path(root)
        assert table is not None
        copy_file(table, folder / table.name)

    return scenes.has_classes(), scenes.classes, write


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a folder that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
