"""COCO's instances JSON: https://cocodataset.org/#format-data."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.formats.coco_entries import KEYS, add, check_keys
from src.kit.scenes.formats.json_stream import stream
from src.kit.scenes.samples import Scenes


def read(path: Path, images: Path, class_maps: Path | None = None) -> Scenes:
    """Read an annotation file whose `file_name`s are relative to the folder `images`.

    Categories become classes in the order of their ids, gaps closed; images without annotations stay. Boxes are
    clipped to their image, and dropped where nothing of them is inside (counted in the log). The outlines are used if
    every object has one.

    Args:
        class_maps: a folder with <stem>.png for each image, whose pixels are category ids, 0 for none of them.

    Raises:
        UserError: names the file and the entry: no JSON, a missing key, an unknown image or category, an image file
            that is not there, a box that is not four finite numbers, a polygon of fewer than 3 points.
    """
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return read_once(path, images, class_maps, stamp)


@lru_cache(maxsize=3)  # COCO's takes 12 s, and training and validation may share it; nothing in it ever changes
def read_once(path: Path, images: Path, class_maps: Path | None, stamp: int) -> Scenes:
    """Read the file as it was at `stamp`, its time of modification."""
    annotations = Annotations()
    found: dict[str, dict[Any, Any]] = {"images": {}, "categories": {}}
    numbers: dict[Any, int] = {}  # image id -> its number, in the order in which images or annotations name it
    ids: list[Any] = []  # of the annotations
    for section, entry in stream(path):
        if section not in KEYS:
            continue
        check_keys(entry, section, path)
        if section == "annotations":
            ids.append(entry["id"])
            number = numbers.setdefault(entry["image_id"], len(numbers))
            add(annotations, entry, number, f"{path}: annotation {entry['id']}")
        elif entry["id"] in found[section]:
            raise UserError(f"{path}: two entries in {section!r} have the id {entry['id']!r}.")
        elif section == "images":
            found["images"][entry["id"]] = (entry["file_name"], entry["width"], entry["height"])
            numbers.setdefault(entry["id"], len(numbers))
        else:
            found["categories"][entry["id"]] = str(entry["name"])
    if not found["images"] or not found["categories"]:
        raise UserError(f"{path} is no COCO annotation file: it must list 'images', 'annotations' and 'categories'.")
    add_images(annotations, numbers, found["images"], path, images, class_maps)
    categories = sorted(found["categories"])
    labels = np.array(annotations.labels, np.int64)
    for place in np.flatnonzero(~np.isin(labels, categories))[:1]:
        raise UserError(
            f"{path}: annotation {ids[place]} has the category_id {labels[place]}, which is not in 'categories'."
        )
    check_codes(annotations, ids, path)
    annotations.labels = np.searchsorted(categories, labels)
    annotations.class_ids = {identifier: number for number, identifier in enumerate(categories)}
    return Scenes(annotations.finish(path), [found["categories"][identifier] for identifier in categories])


def add_images(
    annotations: Annotations,
    numbers: Mapping[Any, int],
    found: Mapping[Any, tuple[str, Any, Any]],
    path: Path,
    images: Path,
    class_maps: Path | None,
) -> None:
    """Add the images in the order of `numbers`; every file must be there."""
    listed: dict[Path, set[str]] = {}
    for identifier in numbers:
        if identifier not in found:
            raise UserError(f"{path}: annotations have the image_id {identifier!r}, which is not in 'images'.")
        name, width, height = found[identifier]
        where = f"{path}: image {identifier!r}"
        if not all(isinstance(side, int) and side > 0 for side in (width, height)):
            raise UserError(f"{where} has the width {width!r} and the height {height!r}, which must be pixels.")
        relative = PurePosixPath(str(name))
        if relative.is_absolute() or ".." in relative.parts or "\\" in str(name):
            raise UserError(f"{where} has the file_name {name!r}, which must be relative to {images}, with slashes.")
        file = images / relative
        if file.parent not in listed:
            listed[file.parent] = set(os.listdir(file.parent)) if file.parent.is_dir() else set()
        if file.name not in listed[file.parent]:
            raise UserError(f"{where} is {file}, which does not exist: add the file or drop it from the annotations.")
        class_map = class_maps / f"{file.stem}.png" if class_maps else None
        annotations.add_image(file, identifier, (width, height), class_map)


def check_codes(annotations: Annotations, ids: Sequence[Any], path: Path) -> None:
    """Refuse a run-length code of another size than its image."""
    assert annotations.outlines is not None
    for place, code in annotations.outlines.codes.items():
        image = annotations.owners[place]
        width, height = annotations.sizes[2 * image : 2 * image + 2]
        if list(code["size"]) != [height, width]:
            raise UserError(
                f"{path}: annotation {ids[place]} has a run-length code of the size {code['size']}, "
                f"but its image is [{height}, {width}]."
            )
