"""Pascal VOC's format: an XML file per image; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.

Annotations/<name>.xml, JPEGImages/<name>.jpg and ImageSets/Main/{train,val,test}.txt with the names of each split.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from src.kit.config import UserError, unknown
from src.kit.scenes.annotations import Annotations, Record
from src.kit.scenes.format_files import by_split, list_images
from src.kit.scenes.samples import Scenes


class SafeBuilder(ElementTree.TreeBuilder):
    """Refuse documents that declare entities, which can expand to gigabytes or read other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before anything of the declaration is expanded."""
        raise ValueError("a document type declaration is not allowed")


def find_voc_splits(root: Path) -> dict[str, Path]:
    """Find the file that lists each split's images."""
    found = by_split((root / "ImageSets" / "Main").glob("*.txt"))
    if "train" not in found:
        raise UserError(f"{root} holds no VOC data set: {root / 'ImageSets' / 'Main' / 'train.txt'} does not exist.")
    return found


def read_voc_classes(root: Path) -> tuple[str, ...]:
    """Read classes.txt; without it, sort all names in the annotations of all splits."""
    path = root / "classes.txt"
    if path.is_file():
        return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    files = sorted((root / "Annotations").glob("*.xml"))
    return tuple(sorted({text_of(item, "name", file) for file in files for item in parse_xml(file).iterfind("object")}))


def read_splits(root: Path) -> dict[str, Scenes]:
    """Read all splits of a folder."""
    return {split: read_voc(root, names) for split, names in find_voc_splits(root).items()}


def read_voc(root: Path, names: Path) -> Scenes:
    """Read the images that the file `names` lists, one a line.

    Boxes count pixels from 1 and include the last one. A `difficult` object, which VOC leaves out of its score, becomes
    a crowd object. There are no outlines.

    Raises:
        UserError: names the file: a missing image or XML file, no XML, a missing element, or an unknown class.
    """
    classes = read_voc_classes(root)
    images = {path.stem: path for path in list_images(root / "JPEGImages")}
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
    found = (element.findtext(key) or "").strip()
    if not found:
        raise UserError(f"{path} has a <{element.tag}> without <{key.replace('/', '><')}>.")
    return found


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


def image_folder(root: Path, split: str) -> Path:
    """The folder for the images of a split: all share one."""
    return root / "JPEGImages"


def write_split(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
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
        content = ElementTree.ElementTree(describe_image(name, record, classes))
        ElementTree.indent(content)
        content.write(root / "Annotations" / f"{names[-1]}.xml", "utf-8")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return +lost


def describe_image(name: str, record: Record, classes: Sequence[str]) -> ElementTree.Element:
    """The XML of one image."""
    assert record.size is not None
    root = ElementTree.Element("annotation")
    add_elements(root, {"filename": name, "size": {"width": record.size[0], "height": record.size[1], "depth": 3}})
    # the first and the last pixel, counted from 1; a box of less than a pixel gets the one around its middle
    first, last = np.rint(record.boxes[:, :2]).astype(int) + 1, np.rint(record.boxes[:, 2:]).astype(int)
    middle = np.floor((record.boxes[:, :2] + record.boxes[:, 2:]) / 2).astype(int) + 1
    first, last = np.where(last < first, middle, first), np.where(last < first, middle, last)
    for place, label in enumerate(record.labels):
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), (*first[place], *last[place]), strict=True))
        difficult = int(record.crowd[place])
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


def write_classes(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write classes.txt: VOC has no list of classes, and their order would be lost."""
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), "utf-8")
