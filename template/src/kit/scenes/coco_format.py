"""COCO's format: instances JSON files with boxes and outlines; https://cocodataset.org/#format-data."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.loading import refuse_file
from src.kit.scenes.annotations import ADVICE, Annotations, Outline, Record, encode_outline
from src.kit.scenes.coco_entries import (
    area_of,
    corners,
    flag,
    identifier,
    inner_path,
    pixels,
    project_category,
    read_outline,
    shown,
    text,
    whole,
)
from src.kit.scenes.format_files import by_split, stream, subfolders
from src.kit.scenes.samples import Scenes, renumber_classes
from src.kit.storage import sort_paths

logger = logging.getLogger(__name__)
BESIDE = "_annotations.coco.json"  # the file's name where it is in the folder of its images
Rule = tuple[Callable[[Any], Any], str]  # reads a value, None for a wrong one; what is right
NUMBER, ID = (whole, "a whole number"), (identifier, "a whole number or a text")
SIDE, NAME = (pixels, "a whole number of pixels"), (text, "a text")
PATH = (inner_path, "a path relative to the images' folder, with slashes")
KEYS: dict[str, dict[str, Rule]] = {
    "images": {"id": ID, "file_name": PATH, "width": SIDE, "height": SIDE},
    "annotations": {
        "id": ID,
        "image_id": ID,
        "category_id": NUMBER,
        "bbox": (corners, "four numbers: x, y, width, height"),
    },
    "categories": {"id": NUMBER, "name": NAME},
}
CROWD: dict[str, Rule] = {"iscrowd": (flag, "0 or 1")}  # may be missing
NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush"""
COCO_CLASSES = tuple(" ".join(NAMES.split()).split(", "))  # in the order of their ids


def is_coco(root: Path) -> bool:
    """Whether a folder holds COCO annotations."""
    return any((root / "annotations").glob("*.json")) or any(root.glob(f"*/{BESIDE}"))


def find_coco_splits(root: Path) -> dict[str, tuple[Path, Path, Path | None]]:
    """Find each split's annotation file, folder of images and folder of class maps (None if there is none).

    The file is annotations/<split>.json, with names such as instances_train2017.json too; or the only file in
    annotations/; or <split>/_annotations.coco.json. The images are next to it or in <split>/, images/<split>/ or
    images/, the class maps in class_maps/<split>/.
    """
    refuse_file(root)
    files = sort_paths((root / "annotations").glob("*.json"))
    annotation_files = by_split(files) or ({"train": files[0]} if len(files) == 1 else {})
    if not annotation_files:
        inside = by_split(folder for folder in subfolders(root) if (folder / BESIDE).is_file())
        annotation_files = {split: folder / BESIDE for split, folder in inside.items()}
    if "train" not in annotation_files:
        raise UserError(
            f"{root} holds no COCO data set: put the images in {root / 'train'} and the annotations in "
            f"{root / 'annotations' / 'train.json'} (and the same for val and test), or choose another folder."
        )
    splits = {}
    for split, file in annotation_files.items():
        name = file.parent.name if file.name == BESIDE else file.stem.removeprefix("instances_")
        candidates = [root / name, root / split, root / "images" / name, root / "images" / split]
        images = next((path for path in candidates if path.is_dir()), root / "images")
        maps = next((path for path in (root / "class_maps" / name, root / "class_maps" / split) if path.is_dir()), None)
        splits[split] = (file, images, maps)
    return splits


def refuse_missing_maps(root: Path, splits: Mapping[str, tuple[Path, Path, Path | None]]) -> None:
    """Refuse class maps for only some of the splits, whose classes would not be those of the others.

    Raises:
        UserError: names the splits without.
    """
    missing = [split for split, (_, _, maps) in splits.items() if maps is None]
    if missing and len(missing) < len(splits):
        raise UserError(
            f"{root / 'class_maps'} has no class maps for {' and '.join(missing)}: add them, or remove the folder."
        )


def read_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder, with the classes numbered as in training."""
    splits = {split: read_coco(*paths) for split, paths in find_coco_splits(root).items()}
    return {split: renumber_classes(scenes, splits["train"].classes) for split, scenes in splits.items()}


def read_coco(path: Path, images: Path, class_maps: Path | None = None) -> Scenes:
    """Read an annotation file whose `file_name`s are relative to the folder `images`.

    Categories become classes in the order of their ids, without gaps. Images without annotations stay. Boxes are
    clipped to their image, or dropped if nothing of them is inside; the log counts both. Outlines are used if every
    object has one: an outline of fewer than 3 points, or one that cannot be read, is none.

    Args:
        class_maps: folder with <stem>.png for each image, whose pixels are category ids. 0 is the background unless it
            is a category; pixels of other ids are ignored.

    Raises:
        UserError: names the file and the entry: no JSON, a missing key or wrong value, an unknown image or category, or
            a missing image file.
    """
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return read_once(path, images, class_maps, stamp)


@lru_cache(maxsize=3)  # COCO's takes 12 s, and training and validation may share it; nobody changes it
def read_once(path: Path, images: Path, class_maps: Path | None, stamp: int) -> Scenes:
    """Read the file; `stamp` is its modification time."""
    annotations = Annotations()
    images_by_id: dict[int | str, tuple[Any, int, int]] = {}  # file_name, width, height
    categories: dict[int, dict[str, Any]] = {}
    numbers: dict[Any, int] = {}  # image id -> its number, in the order in which images or annotations name it
    ids: list[Any] = []  # of the annotations
    for section, entry in stream(path):
        if section not in KEYS:
            continue
        values = read_entry(entry, section, path)
        if section == "annotations":
            ids.append(values["id"])
            number = numbers.setdefault(values["image_id"], len(numbers))
            outline, fault = read_outline(entry.get("segmentation"))
            why = f"annotation {shown(values['id'])} of {path}" + (f", where {fault[1]}" if fault else "")
            label, crowd = values["category_id"], values["iscrowd"]
            area = area_of(entry.get("area"))
            annotations.add_object(number, values["bbox"], label, crowd, outline, "" if outline else why, area)
            continue
        known: dict[Any, Any] = images_by_id if section == "images" else categories
        if values["id"] in known:
            raise UserError(f"{path}: two entries in {section!r} have the id {shown(values['id'])}. {ADVICE}")
        if section == "images":
            images_by_id[values["id"]] = (values["file_name"], values["width"], values["height"])
            numbers.setdefault(values["id"], len(numbers))
        else:
            categories[values["id"]] = {"name": values["name"], "supercategory": entry.get("supercategory")}
    if not images_by_id or not categories:
        raise UserError(f"{path} is no COCO annotation file: it must list 'images', 'annotations' and 'categories'.")
    add_images(annotations, numbers, images_by_id, path, images, class_maps)
    number_classes(annotations, categories, ids, path)
    check_codes(annotations, ids, path)
    return Scenes(annotations.finish(path), [categories[number]["name"] for number in annotations.class_ids])


def number_classes(
    annotations: Annotations, categories: dict[int, dict[str, Any]], ids: Sequence[Any], path: Path
) -> None:
    """Turn category ids into class numbers; Roboflow's category of the project is dropped if no object has it."""
    labels = np.array(annotations.labels, np.int64)
    project = project_category(categories)
    if project is not None and not (labels == project).any():
        logger.info("%s: category 0, %r, is Roboflow's name of the project and no class.", path, categories[0]["name"])
        del categories[project]
    known = sorted(categories)
    for row in np.flatnonzero(~np.isin(labels, known))[:1]:
        raise UserError(
            f"{path}: annotation {shown(ids[row])} has the category_id {labels[row]}, which is not in 'categories'. "
            f"{ADVICE}"
        )
    annotations.labels = np.searchsorted(known, labels)
    annotations.class_ids = {category: number for number, category in enumerate(known)}


def add_images(
    annotations: Annotations,
    numbers: Mapping[Any, int],
    entries: Mapping[Any, tuple[Any, int, int]],
    path: Path,
    images: Path,
    class_maps: Path | None,
) -> None:
    """Add the images in the order of `numbers`; every file must be there."""
    listed: dict[Path, set[str]] = {}
    for number in numbers:
        if number not in entries:
            fault = f"annotations have the image_id {shown(number)}, which is not in 'images'"
            raise UserError(f"{path}: {fault}. {ADVICE}")
        name, width, height = entries[number]
        file = images / name
        if file.parent not in listed:
            listed[file.parent] = names_in(file.parent)
        if file.name not in listed[file.parent]:
            raise UserError(
                f"{path}: image {shown(number)} is {str(file)[:300]}, which does not exist: add the file or drop "
                f"it from the annotations. {ADVICE}"
            )
        class_map = find_class_map(class_maps, name) if class_maps else None
        annotations.add_image(file, number, (width, height), class_map)


def find_class_map(class_maps: Path, name: Any) -> Path:
    """The class map of the image with this file_name: <stem>.png, in the same subfolder if there is one."""
    nested: Path = class_maps / name.with_suffix(".png")
    return nested if len(name.parts) > 1 and nested.is_file() else class_maps / f"{name.stem}.png"


def names_in(folder: Path) -> set[str]:
    """What is in a folder; nothing if it doesn't exist or its path is too long to."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def check_codes(annotations: Annotations, ids: Sequence[Any], path: Path) -> None:
    """Leave out a run-length code of another size than its image."""
    assert annotations.outlines is not None
    for row, code in list(annotations.outlines.codes.items()):
        image = annotations.owners[row]
        width, height = annotations.sizes[2 * image : 2 * image + 2]
        if list(code["size"]) != [height, width]:
            annotations.outlines.drop_code(
                row,
                f"annotation {shown(ids[row])} of {path}, where a run-length code has the size {list(code['size'])} "
                f"and its image [{height}, {width}]",
            )


def read_entry(entry: Any, section: str, path: Path) -> dict[str, Any]:
    """The values of an entry by the rules of `KEYS`.

    Raises:
        UserError: names the file, the entry and the key: it is missing, or its value is wrong.
    """
    entry = entry if isinstance(entry, dict) else {}
    optional = CROWD if section == "annotations" else {}
    values = {}
    for key, (read, right) in (KEYS[section] | optional).items():
        values[key] = read(entry.get(key))
        if values[key] is None:
            named = f"the entry of id {shown(entry['id'])}" if "id" in entry else "an entry"
            wrong = (
                f"has the wrong {key} {shown(entry[key])}: it must be {right}" if key in entry else f"has no {key!r}"
            )
            raise UserError(f"{path}: {named} in {section!r} {wrong}. {ADVICE}")
    return values


def image_folder(root: Path, split: str) -> Path:
    """The folder for the images of a split."""
    return root / split


def write_split(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
    """Write annotations/instances_<split>.json; categories get the ids 1, 2, 3, ... Nothing is lost.

    Args:
        entries: the file name of each image, and its record in pixels.
    """
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    count = 0
    # the annotations of a large data set do not fit into memory: they are written as they come
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for name, record in entries:
            assert record.size is not None
            images.append({"id": len(images) + 1, "file_name": name, "width": record.size[0], "height": record.size[1]})
            for row in range(len(record.labels)):
                count += 1
                entry = {"id": count, "image_id": len(images), **describe_object(record, row)}
                file.write(f"{',' if count > 1 else ''}\n{json.dumps(entry)}")
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        file.write(
            f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories, ensure_ascii=False)}}}\n'
        )
    return Counter()


def write_classes(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Do nothing: the splits' files have the classes."""


def describe_object(record: Record, row: int) -> dict[str, Any]:
    """One object's category, box, outline and area."""
    from pycocotools import mask

    assert record.size is not None
    left, top, right, bottom = record.boxes[row].astype(float)
    entry = {
        "category_id": int(record.labels[row]) + 1,
        "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
        "iscrowd": int(record.crowd[row]),
        "area": round((right - left) * (bottom - top), 3),
    }
    if record.outlines is None:
        return entry
    outline = record.outlines[row]
    area = int(mask.area(encode_outline(outline, record.size[1], record.size[0])))
    return {**entry, "area": area, "segmentation": outline_to_json(outline)}


def outline_to_json(outline: Outline) -> Any:
    """Convert an outline to polygons or a run-length code in JSON."""
    if isinstance(outline, Mapping):
        return {"size": outline["size"], "counts": outline["counts"].decode()}
    return [[round(value, 3) for value in ring.ravel().tolist()] for ring in outline]
