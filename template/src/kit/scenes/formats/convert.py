"""Convert a data set with boxes and outlines from one format to another, all of it or nothing."""

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from src.kit.config import UserError, unknown
from src.kit.scenes.formats import coco, coco_layout, coco_write, voc, voc_write, yolo, yolo_write
from src.kit.scenes.records import Record
from src.kit.scenes.samples import Scenes
from src.kit.scenes.scene_splits import number_as

WRITERS = {"coco": coco_write, "voc": voc_write, "yolo": yolo_write}
ORIENTATION = 0x0112  # EXIF tag; from 5 on the image lies on its side


def convert(source: Path, target: Path, before: str, after: str, link: bool = False) -> dict[str, int]:
    """Write the data set in `source` to the new folder `target`, and count its splits' images and what was lost.

    Args:
        before, after: formats, keys of `WRITERS`.
        link: make hard links of the images instead of copies.

    Raises:
        UserError: an unknown format, a target that holds files already, or what the readers refuse; nothing is left.
    """
    for name in (before, after):
        if name not in WRITERS:
            raise UserError(unknown("format", name, WRITERS))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already: name a new folder.")
    splits = read(source, before)
    classes, writer, counts = splits["train"].classes, WRITERS[after], Counter[str]()
    if len(set(classes)) < len(classes):
        raise UserError(f"{source} has two classes of the same name: {', '.join(classes)}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        names = choose_names(source, splits)
        place = os.link if link else shutil.copyfile
        for split, scenes in splits.items():
            entries = transfer(scenes, names, writer.image_folder(work / "new", split), place)
            counts[f"images of {split}"] = len(scenes)
            if maps := sum(map(bool, scenes.annotations.class_maps)):
                counts["class maps left out, which are not converted"] += maps
            counts.update(writer.write(work / "new", split, classes, entries))
        writer.finish(work / "new", classes, list(splits))
        if target.exists():
            target.rmdir()
        os.replace(work / "new", target)
    except OSError as error:
        if not link or error.errno != errno.EXDEV:
            raise
        raise UserError(
            f"{target} is on another disk than {source}: leave --link out, so that images are copied."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return dict(counts)


def read(root: Path, name: str) -> dict[str, Scenes]:
    """All splits of a data set, with the classes numbered as in training."""
    if name == "coco":
        found = {split: coco.read(*places) for split, places in coco_layout.find_coco_splits(root).items()}
        return {split: number_as(scenes, found["train"].classes) for split, scenes in found.items()}
    if name == "voc":
        return {split: voc.read(root, names) for split, names in voc.find_splits(root).items()}
    classes = yolo.read_classes(root)
    return {split: yolo.read(*places, classes) for split, places in yolo.find_yolo_splits(root).items()}


def choose_names(source: Path, splits: Mapping[str, Scenes]) -> dict[Path, str]:
    """A file name for each image, whose stem no other image of the data set has.

    The name stays as it is; where two images share one, all names get those of their folders in front.
    """
    paths = [scenes.path(index) for scenes in splits.values() for index in range(len(scenes))]
    short = {path: path.name for path in paths}
    long = {path: "_".join(path.relative_to(source).parts) for path in paths}
    for names in (short, long):
        if len({Path(name).stem.casefold() for name in names.values()}) == len(paths):
            return names
    raise UserError(f"{source} lists an image twice, or two whose names differ only in their endings: rename them.")


def transfer(
    scenes: Scenes, names: Mapping[Path, str], folder: Path, place: Callable[[Path, Path], object]
) -> Iterator[tuple[str, Record]]:
    """Put the images into their folder one by one, and yield their names and records in pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(scenes)):
        record = scenes.record(index)
        size = shown_size(record.path)
        place(record.path, folder / names[record.path])
        yield names[record.path], record.in_pixels(*size)


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, rotated as EXIF says; decodes nothing."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise UserError(f"Cannot read {path}: {error}. Replace the file or move it out of the data set.") from error
