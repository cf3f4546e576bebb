"""Convert a data set with boxes and outlines from one format to another: all of it or nothing."""

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from src.kit.config import UserError, unknown
from src.kit.scenes import coco_format, voc_format, yolo_format
from src.kit.scenes.annotations import Record
from src.kit.scenes.samples import Scenes

FORMATS = {"coco": coco_format, "voc": voc_format, "yolo": yolo_format}
ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped


def convert_data_set(source: Path, target: Path, before: str, after: str, link: bool = False) -> dict[str, int]:
    """Write the data set in `source` to the new folder `target`, and count the images of its splits and what was lost.

    Args:
        before, after: the formats, keys of `FORMATS`.
        link: make hard links of the images instead of copies.

    Raises:
        UserError: an unknown format, a target that holds files, or what the readers refuse; nothing is left behind.
    """
    for name in (before, after):
        if name not in FORMATS:
            raise UserError(unknown("format", name, FORMATS))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already: name a new folder.")
    splits = FORMATS[before].read_splits(source)
    classes, writer, counts = splits["train"].classes, FORMATS[after], Counter[str]()
    if len(set(classes)) < len(classes):
        raise UserError(f"{source} has two classes of the same name: {', '.join(classes)}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        names = choose_names(source, splits)
        copy = os.link if link else shutil.copyfile
        for split, scenes in splits.items():
            entries = transfer_images(scenes, names, writer.image_folder(work / "new", split), copy)
            counts[f"images of {split}"] = len(scenes)
            if maps := sum(map(bool, scenes.annotations.class_maps)):
                counts["class maps left out, which are not converted"] += maps
            counts.update(writer.write_split(work / "new", split, classes, entries))
        writer.write_classes(work / "new", classes, list(splits))
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


def choose_names(source: Path, splits: Mapping[str, Scenes]) -> dict[Path, str]:
    """Choose a file name for each image, with a stem that no other image has.

    Names stay as they are, unless two images share one: then all are prefixed with their folders' names.
    """
    paths = [scenes.path(index) for scenes in splits.values() for index in range(len(scenes))]
    short = {path: path.name for path in paths}
    long = {path: "_".join(path.relative_to(source).parts) for path in paths}
    for names in (short, long):
        if len({Path(name).stem.casefold() for name in names.values()}) == len(paths):
            return names
    raise UserError(f"{source} lists an image twice, or two whose names differ only in their endings: rename them.")


def transfer_images(
    scenes: Scenes, names: Mapping[Path, str], folder: Path, copy: Callable[[Path, Path], object]
) -> Iterator[tuple[str, Record]]:
    """Copy or link the images into their folder one by one, and yield their names and records in pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(len(scenes)):
        record = scenes.record(index)
        size = shown_size(record.path)
        copy(record.path, folder / names[record.path])
        yield names[record.path], record.in_pixels(*size)


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file after its EXIF rotation, without decoding it."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise UserError(f"Cannot read {path}: {error}. Replace the file or move it out of the data set.") from error
