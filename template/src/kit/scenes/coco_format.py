"""COCO's format: instances JSON files with boxes and outlines; https://cocodataset.org/#format-data."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.scenes.annotations import Annotations, Outline, Record, encode_outline
from src.kit.scenes.format_files import by_split, stream, subfolders
from src.kit.scenes.samples import Scenes, renumber_classes

BESIDE = "_annotations.coco.json"  # the file's name where it is in the folder of its images
KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "annotations": {"id": object, "image_id": (int, str), "category_id": int, "bbox": object},
    "categories": {"id": int, "name": object},
}
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
    files = sorted((root / "annotations").glob("*.json"))
    found = by_split(files) or ({"train": files[0]} if len(files) == 1 else {})
    if not found:
        inside = by_split(folder for folder in subfolders(root) if (folder / BESIDE).is_file())
        found = {split: folder / BESIDE for split, folder in inside.items()}
    if "train" not in found:
        raise UserError(
            f"{root} holds no COCO data set: put the images in {root / 'train'} and the annotations in "
            f"{root / 'annotations' / 'train.json'} (and the same for val and test), or choose another folder."
        )
    splits = {}
    for split, file in found.items():
        name = file.parent.name if file.name == BESIDE else file.stem.removeprefix("instances_")
        places = [root / name, root / split, root / "images" / name, root / "images" / split]
        images = next((place for place in places if place.is_dir()), root / "images")
        maps = next(
            (place for place in (root / "class_maps" / name, root / "class_maps" / split) if place.is_dir()), None
        )
        splits[split] = (file, images, maps)
    return splits


def read_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder, with the classes numbered as in training."""
    splits = {split: read_coco(*paths) for split, paths in find_coco_splits(root).items()}
    return {split: renumber_classes(scenes, splits["train"].classes) for split, scenes in splits.items()}


def read_coco(path: Path, images: Path, class_maps: Path | None = None) -> Scenes:
    """Read an annotation file whose `file_name`s are relative to the folder `images`.

    Categories become classes in the order of their ids, without gaps. Images without annotations stay. Boxes are
    clipped to their image, or dropped if nothing of them is inside; the log counts both. Outlines are used if every
    object has one.

    Args:
        class_maps: folder with <stem>.png for each image, whose pixels are category ids, 0 for none of them.

    Raises:
        UserError: names the file and the entry: no JSON, a missing key, an unknown image or category, a missing image
            file, a box that isn't four finite numbers, or a polygon of fewer than 3 points.
    """
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return read_once(path, images, class_maps, stamp)


@lru_cache(maxsize=3)  # COCO's takes 12 s, and training and validation may share it; nobody changes it
def read_once(path: Path, images: Path, class_maps: Path | None, stamp: int) -> Scenes:
    """Read the file; `stamp` is its modification time."""
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
            add_annotation(annotations, entry, number, f"{path}: annotation {entry['id']}")
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


def check_keys(entry: Any, section: str, path: Path) -> None:
    """Refuse an entry with a missing key or a value of another type."""
    entry = entry if isinstance(entry, dict) else {}
    for key, kind in KEYS[section].items():
        if entry.get(key) is None or not isinstance(entry[key], kind):
            named = f"the entry of id {entry['id']!r}" if "id" in entry else "an entry"
            problem = f"has the wrong {key} {entry[key]!r}" if key in entry else f"has no {key!r}"
            raise UserError(f"{path}: {named} in {section!r} {problem}.")


def add_annotation(annotations: Annotations, entry: Mapping[str, Any], image: int, where: str) -> None:
    """Add one annotation, with its category id as the label; `where` begins every message."""
    box, outline = entry["bbox"], entry.get("segmentation") or None
    try:
        left, top, width, height = map(float, box)
        finite = math.isfinite(left + top + width + height)
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise UserError(f"{where} has the bbox {box}, which must be four numbers: x, y, width, height.")
    crowd = bool(entry.get("iscrowd", 0))
    annotations.add_object(
        image, (left, top, left + width, top + height), entry["category_id"], crowd, check_outline(outline, where)
    )


def check_outline(outline: Any, where: str) -> Sequence[Sequence[float]] | Mapping[str, Any] | None:
    """Return rings of x, y, ... as they are, and run-length codes with compressed counts."""
    if outline is None:
        return None
    if isinstance(outline, dict):
        return compress_code(outline, where)
    if not (isinstance(outline, list) and all(isinstance(ring, list) for ring in outline)):
        raise UserError(f"{where} has a 'segmentation' that is neither polygons nor a run-length code.")
    for ring in outline:
        if len(ring) < 6 or len(ring) % 2:
            raise UserError(f"{where} has a polygon of {len(ring)} numbers: it must have x and y of at least 3 points.")
        try:
            finite = math.isfinite(sum(ring))
        except TypeError:
            finite = False
        if not finite:
            raise UserError(f"{where} has a polygon with something else than finite numbers in it.")
    return outline


def compress_code(code: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Compress the counts of a run-length code."""
    from pycocotools import mask

    size, counts = code.get("size"), code.get("counts")
    try:
        height, width = map(int, size)  # type: ignore[arg-type]
        if isinstance(counts, str):
            return {"size": [height, width], "counts": counts.encode()}
        if sum(counts) == height * width and min(counts) >= 0:  # type: ignore[arg-type]
            return mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    except (TypeError, ValueError):
        pass
    raise UserError(f"{where} has a run-length code without a size [height, width] that its counts fill.")


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
            for place in range(len(record.labels)):
                count += 1
                entry = {"id": count, "image_id": len(images), **describe_object(record, place)}
                file.write(f"{',' if count > 1 else ''}\n{json.dumps(entry)}")
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        file.write(
            f'],\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories, ensure_ascii=False)}}}\n'
        )
    return Counter()


def write_classes(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Do nothing: the splits' files have the classes."""


def describe_object(record: Record, place: int) -> dict[str, Any]:
    """One object's category, box, outline and area."""
    from pycocotools import mask

    assert record.size is not None
    left, top, right, bottom = record.boxes[place].astype(float)
    entry = {
        "category_id": int(record.labels[place]) + 1,
        "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
        "iscrowd": int(record.crowd[place]),
        "area": round((right - left) * (bottom - top), 3),
    }
    if record.outlines is None:
        return entry
    outline = record.outlines[place]
    area = int(mask.area(encode_outline(outline, record.size[1], record.size[0])))
    return {**entry, "area": area, "segmentation": outline_to_json(outline)}


def outline_to_json(outline: Outline) -> Any:
    """Convert an outline to polygons or a run-length code in JSON."""
    if isinstance(outline, Mapping):
        return {"size": outline["size"], "counts": outline["counts"].decode()}
    return [[round(value, 3) for value in ring.ravel().tolist()] for ring in outline]
