"""Write Pascal VOC's format: JPEGImages/, Annotations/, ImageSets/Main/ and classes.txt."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from src.kit.scenes.records import Record


def image_folder(root: Path, split: str) -> Path:
    """Where the images of a split belong: all splits share one folder."""
    return root / "JPEGImages"


def write(root: Path, split: str, classes: Sequence[str], entries: Iterable[tuple[str, Record]]) -> Counter[str]:
    """Write a split's XML files and its list, and return what was lost; boxes are rounded to whole pixels.

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
        content = ElementTree.ElementTree(describe(name, record, classes))
        ElementTree.indent(content)
        content.write(root / "Annotations" / f"{names[-1]}.xml", "utf-8")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return +lost


def describe(name: str, record: Record, classes: Sequence[str]) -> ElementTree.Element:
    """The XML of one image."""
    assert record.size is not None
    root = ElementTree.Element("annotation")
    add(root, {"filename": name, "size": {"width": record.size[0], "height": record.size[1], "depth": 3}})
    # the first and the last pixel, counted from 1; a box of less than a pixel gets the one around its middle
    first, last = np.rint(record.boxes[:, :2]).astype(int) + 1, np.rint(record.boxes[:, 2:]).astype(int)
    middle = np.floor((record.boxes[:, :2] + record.boxes[:, 2:]) / 2).astype(int) + 1
    first, last = np.where(last < first, middle, first), np.where(last < first, middle, last)
    for place, label in enumerate(record.labels):
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), (*first[place], *last[place]), strict=True))
        difficult = int(record.crowd[place])
        add(root, {"object": {"name": classes[label], "difficult": difficult, "bndbox": box}})
    return root


def add(parent: ElementTree.Element, content: dict[str, object]) -> None:
    """Append an element for each key."""
    for key, value in content.items():
        element = ElementTree.SubElement(parent, key)
        if isinstance(value, dict):
            add(element, value)
        else:
            element.text = str(value)


def finish(root: Path, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Write classes.txt: VOC has no list of its classes, and without one their order would be lost."""
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), "utf-8")
