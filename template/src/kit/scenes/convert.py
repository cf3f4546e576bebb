"""Convert a data set with boxes and outlines from one format to another: all of it or nothing.

Only the converter reads and writes Pascal VOC's format, so it is here too: an XML file per image, with
Annotations/<name>.xml, JPEGImages/<name>.jpg and ImageSets/Main/{train,val,test}.txt with the names of each split;
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.
"""

import errno
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from src.kit.config import UserError, unknown
from src.kit.loading import find_images
from src.kit.scenes import coco_format, yolo_format
from src.kit.scenes.annotations import Annotations, Record, shown_size
from src.kit.scenes.format_files import by_split
from src.kit.scenes.samples import Scenes
from src.kit.storage import sort_paths


class Format(NamedTuple):
    """What the converter needs of a format."""

    read_splits: Callable[[Path], dict[str, Scenes]]
    image_folder: Callable[[Path, str], Path]
    write_split: Callable[[Path, str, Sequence[str], Iterable[tuple[str, Record]]], Counter[str]]
    write_classes: Callable[[Path, Sequence[str], Sequence[str]], None]

    @classmethod
    def of(cls, module: ModuleType) -> "Format":
        """The functions of these names in a module."""
        return cls(*(getattr(module, name) for name in cls._fields))


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


class SafeBuilder(ElementTree.TreeBuilder):
    """Refuse documents that declare entities, which can expand to gigabytes or read other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before anything of the declaration is expanded."""
        raise ValueError("a document type declaration is not allowed")


def find_voc_splits(root: Path) -> dict[str, Path]:
    """Find the file that lists each split's images."""
    splits = by_split((root / "ImageSets" / "Main").glob("*.txt"))
    if "train" not in splits:
        raise UserError(f"{root} holds no VOC data set: {root / 'ImageSets' / 'Main' / 'train.txt'} does not exist.")
    return splits


def read_voc_classes(root: Path) -> tuple[str, ...]:
    """Read classes.txt; without it, sort all names in the annotations of all splits."""
    path = root / "classes.txt"
    if path.is_file():
        return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    files = sort_paths((root / "Annotations").glob("*.xml"))
    return tuple(sorted({text_of(item, "name", file) for file in files for item in parse_xml(file).iterfind("object")}))


def read_voc_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder in VOC's format."""
    return {split: read_voc(root, names) for split, names in find_voc_splits(root).items()}


def read_voc(root: Path, names: Path) -> Scenes:
    """Read the images that the file `names` lists, one a line.

    Boxes count pixels from 1 and include the last one. A `difficult` object, which VOC leaves out of its score, becomes
    a crowd object. There are no outlines.

    Raises:
        UserError: names the file: a missing image or XML file, no XML, a missing element, or an unknown class.
    """
    classes = read_voc_classes(root)
    images = {path.stem: path for path in find_images(root / "JPEGImages")}
    annotations = Annotations()
    annotations.class_ids = {number: number for number in range(len(classes))}
    for line in names.read_text("utf-8").splitlines():
        if not line.strip():
            continue
        # lists of one class have a flag behind the name, and a name may have spaces
        name = line.strip() if line.strip() in images else line.split()[0]
        if name not in images:
            raise UserError(f"{names} lists {name!r}, but {root / 'JPEGImages'} has no image of that name.")
        file = root / "Annotations" / f"{name}.xml"
        content = parse_xml(file)
        size = int(number_of(content, "size/width", file)), int(number_of(content, "size/height", file))
        if min(size) < 1:
            raise UserError(f"{file} gives its image {size[0]} x {size[1]} pixels: write the size of the image.")
        image = annotations.add_image(images[name], name, size)
        for item in content.iterfind("object"):
            label = text_of(item, "name", file)
            if label not in classes:
                raise UserError(f"{file}: {unknown('class', label, classes)}")
            left, top, right, bottom = (
                number_of(item, f"bndbox/{key}", file) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult = item.findtext("difficult", "0").strip() == "1"
            annotations.add_object(image, (left - 1, top - 1, right, bottom), classes.index(label), difficult)
    return Scenes(annotations.finish(root / "Annotations"), classes)


def parse_xml(path: Path) -> ElementTree.Element:
    """Read one XML file."""
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=SafeBuilder())).getroot()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: add it or take its image out of ImageSets/Main.") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} cannot be read as XML: {error}.") from error


def text_of(element: ElementTree.Element, key: str, path: Path) -> str:
    """The text of an element that must be there."""
    content = (element.findtext(key) or "").strip()
    if not content:
        raise UserError(f"{path} has a <{element.tag}> without <{key.replace('/', '><')}>.")
    return content


def number_of(element: ElementTree.Element, key: str, path: Path) -> float:
    """The number in an element that must be there; a few data sets have fractions of pixels."""
    content = text_of(element, key, path)
    try:
        value = float(content)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: <{key.replace('/', '><')}> is {content!r}, which is no number.")
    return value


def voc_image_folder(root: Path, split: str) -> Path:
    """The folder for the images of a split: all share one."""
    return root / "JPEGImages"


def write_voc_split(
    root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]
) -> Counter[str]:
    """Write a split's XML files and its list, and count what was lost; boxes are rounded to whole pixels.

    Args:
        entries: the file name of each image, and its record in pixels.
    """
    lost: Counter[str] = Counter()
    names = []
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, record in entries:
        names.append(Path(name).stem)
        if record.outlines is not None:
            lost["outlines left out, which VOC's format does not know"] += len(record.outlines)
        lost["crowd regions marked as difficult"] += int(record.crowd.sum())
        content = ElementTree.ElementTree(describe_voc_image(name, record, classes))
        ElementTree.indent(content)
        content.write(root / "Annotations" / f"{names[-1]}.xml", "utf-8")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return +lost


def describe_voc_image(name: str, record: Record, classes: Sequence[str]) -> ElementTree.Element:
    """The XML of one image."""
    assert record.size is not None
    root = ElementTree.Element("annotation")
    add_elements(root, {"filename": name, "size": {"width": record.size[0], "height": record.size[1], "depth": 3}})
    # the first and the last pixel, counted from 1; a box of less than a pixel gets the one around its middle
    first, last = np.rint(record.boxes[:, :2]).astype(int) + 1, np.rint(record.boxes[:, 2:]).astype(int)
    middle = np.floor((record.boxes[:, :2] + record.boxes[:, 2:]) / 2).astype(int) + 1
    first, last = np.where(last < first, middle, first), np.where(last < first, middle, last)
    for row, label in enumerate(record.labels):
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), (*first[row], *last[row]), strict=True))
        difficult = int(record.crowd[row])
        add_elements(root, {"object": {"name": classes[label], "difficult": difficult, "bndbox": box}})
    return root


def add_elements(parent: ElementTree.Element, content: dict[str, object]) -> None:
    """Append an element for each key."""
    for key, value in content.items():
        element = ElementTree.SubElement(parent, key)
        if isinstance(value, dict):
            add_elements(element, value)
        else:
            element.text = str(value)


def write_voc_classes(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write classes.txt: VOC has no list of classes, and their order would be lost."""
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), "utf-8")


FORMATS = {
    "coco": Format.of(coco_format),
    "voc": Format(read_voc_splits, voc_image_folder, write_voc_split, write_voc_classes),
    "yolo": Format.of(yolo_format),
}
