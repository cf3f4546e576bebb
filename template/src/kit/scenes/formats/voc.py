"""Pascal VOC's format: an XML file for each image; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/.

Annotations/<name>.xml, JPEGImages/<name>.jpg and ImageSets/Main/{train,val,test}.txt with the names of each split.
"""

import math
from pathlib import Path
from xml.etree import ElementTree

from src.kit.config import UserError, unknown
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.formats.layout import by_split, list_images
from src.kit.scenes.samples import Scenes


class Builder(ElementTree.TreeBuilder):
    """Refuses documents that declare entities, which can expand to gigabytes or read other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before anything of the declaration is expanded."""
        raise ValueError("a document type declaration is not allowed")


def find_splits(root: Path) -> dict[str, Path]:
    """Split -> the file that lists its images."""
    found = by_split((root / "ImageSets" / "Main").glob("*.txt"))
    if "train" not in found:
        raise UserError(f"{root} holds no VOC data set: {root / 'ImageSets' / 'Main' / 'train.txt'} does not exist.")
    return found


def read_classes(root: Path) -> tuple[str, ...]:
    """The lines of classes.txt where there is one, else all names in the annotations of all splits, sorted."""
    path = root / "classes.txt"
    if path.is_file():
        return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    files = sorted((root / "Annotations").glob("*.xml"))
    return tuple(sorted({text(item, "name", file) for file in files for item in parse(file).iterfind("object")}))


def read(root: Path, names: Path) -> Scenes:
    """Read the images that the file `names` lists, one a line.

    Boxes count pixels from 1 and include the last one. A `difficult` object, which VOC leaves out of its score, becomes
    a crowd object. There are no outlines.

    Raises:
        UserError: names the file: a missing image or XML file, no XML, a missing element, or an unknown class.
    """
    classes = read_classes(root)
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
        content = parse(file)
        size = int(number(content, "size/width", file)), int(number(content, "size/height", file))
        if min(size) < 1:
            raise UserError(f"{file} gives its image {size[0]} x {size[1]} pixels: write the size of the image.")
        image = annotations.add_image(images[name], name, size)
        for item in content.iterfind("object"):
            label = text(item, "name", file)
            if label not in classes:
                raise UserError(f"{file}: {unknown('class', label, classes)}")
            left, top, right, bottom = (number(item, f"bndbox/{key}", file) for key in ("xmin", "ymin", "xmax", "ymax"))
            difficult = item.findtext("difficult", "0").strip() == "1"
            annotations.add_object(image, (left - 1, top - 1, right, bottom), classes.index(label), difficult)
    return Scenes(annotations.finish(root / "Annotations"), classes)


def parse(path: Path) -> ElementTree.Element:
    """Read one XML file."""
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=Builder())).getroot()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: add it or take its image out of ImageSets/Main.") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} cannot be read as XML: {error}.") from error


def text(element: ElementTree.Element, key: str, path: Path) -> str:
    """The text of an element that must be there."""
    found = (element.findtext(key) or "").strip()
    if not found:
        raise UserError(f"{path} has a <{element.tag}> without <{key.replace('/', '><')}>.")
    return found


def number(element: ElementTree.Element, key: str, path: Path) -> float:
    """The number in an element that must be there; a few data sets have fractions of pixels."""
    content = text(element, key, path)
    try:
        value = float(content)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: <{key.replace('/', '><')}> is {content!r}, which is no number.")
    return value
