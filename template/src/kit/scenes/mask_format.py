"""Plain folders of images and masks, and a table that gives each class an id or a colour.

The table is classes.csv (or class_dict.csv) with the columns name and id, or name, r, g and b.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from src.kit.config import UserError
from src.kit.loading import find_images, refuse_file, walk
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.class_maps import count_ids, named_ids
from src.kit.scenes.format_files import by_split, subfolders
from src.kit.scenes.samples import Scenes
from src.kit.storage import read_delimited

TABLES = ("classes.csv", "class_dict.csv")
MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff")  # JPEG changes values
ENDINGS = ("", "_mask", "_segmentation", "_label", "_labels", "_L", "_gt", "_seg")  # of a mask's stem
COLOUR = {"r": "r", "g": "g", "b": "b", "red": "r", "green": "g", "blue": "b"}


class Table(NamedTuple):
    """The classes in masks."""

    classes: tuple[str, ...]
    numbers: dict[int, int]  # id, or 0xrrggbb -> class number
    colours: bool


def is_masks(root: Path) -> bool:
    """Whether a folder holds images and masks."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def find_mask_splits(root: Path) -> dict[str, tuple[Path, Path]]:
    """Find each split's images and masks: images/<split> and masks/<split>, or <split>/images and <split>/masks.

    Without folders of splits, images/ and masks/ are the training split.
    """
    inner = {split: (path, root / "masks" / path.name) for split, path in by_split(subfolders(root / "images")).items()}
    outer = by_split(path for path in subfolders(root) if (path / "images").is_dir())
    splits = inner or {split: (path / "images", path / "masks") for split, path in outer.items()}
    if not splits and is_masks(root):
        splits = {"train": (root / "images", root / "masks")}
    if "train" not in splits:
        raise UserError(
            f"{root} holds no images with masks: put the images in {root / 'images'} and a mask of the same name for "
            f"each in {root / 'masks'} (or in images/train and masks/train, and the same for val and test)."
        )
    return splits


def read_table(root: Path) -> Table:
    """Read the classes of the masks in the folder `root`.

    Raises:
        UserError: no table, or a row without a name, with something else than an id or a colour, or a second time.
    """
    refuse_file(root)
    path = table_path(root)
    if path is None:
        raise UserError(f"{root / TABLES[0]} does not exist: {advice(root)}.")
    try:
        lines, delimiter = read_delimited(path)
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}.") from error
    head = [COLOUR.get(cell.lower(), cell.lower()) for cell in rows[0]] if rows else []
    colours = {"r", "g", "b"} <= set(head)
    if "name" not in head or not (colours or "id" in head) or len(rows) < 2:
        raise UserError(f"{path} must have the columns name and id, or name, r, g and b, and a row for each class.")
    names: list[str] = []
    numbers: dict[int, int] = {}
    for line, row in enumerate(rows[1:], 2):
        cells = dict(zip(head, row, strict=False))
        identifier = read_identifier(cells, colours)
        if identifier is None or not cells.get("name"):
            raise UserError(f"{path}, row {line}: {', '.join(row)[:80]!r} must be a name and {kind_of(colours)}.")
        if identifier in numbers or cells["name"] in names:
            raise UserError(
                f"{path}, row {line}: {', '.join(row)[:80]!r} has a name or {kind_of(colours)} of another row."
            )
        numbers[identifier] = len(names)
        names.append(cells["name"])
    return Table(tuple(names), numbers, colours)


def table_path(root: Path) -> Path | None:
    """The table's file; None if there is none."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def kind_of(colours: bool) -> str:
    """What a row has besides the name."""
    return "a colour of three numbers from 0 to 255" if colours else "an id from 0 to 65535"


def read_identifier(cells: Mapping[str, str], colours: bool) -> int | None:
    """The id in a row's cells, or 0xrrggbb; None where a number is missing or out of range."""
    values = []
    for key, most in (("r", 255), ("g", 255), ("b", 255)) if colours else (("id", 65535),):
        word = cells.get(key, "")
        if not (word.isascii() and word.isdigit() and len(word) < 6 and int(word) <= most):
            return None
        values.append(int(word))
    return values[0] << 16 | values[1] << 8 | values[2] if colours else values[0]


def advice(root: Path) -> str:
    """Say what a table must hold, and what the first masks hold."""
    _, masks = find_mask_splits(root)["train"]
    paths = [masks / name for name in walk(masks) if name.lower().endswith(MASKS)][:5]
    text = "write the columns name and id, or name, r, g and b, with a row for each class"
    if not paths:
        return text
    try:
        counts, colours = [count_ids(path) for path in paths], False
    except UserError:
        counts, colours = [count_ids(path, colours=True) for path in paths], True
    found = sorted({number for each in counts for number in each})
    return f"{text}; the first masks hold the {'colours' if colours else 'ids'} {named_ids(found, colours)}"


def pair_masks(images: Path, masks: Path) -> dict[Path, Path]:
    """Image -> its mask: of the same name, which may end in _mask or the like, in the same subfolder.

    An image without a mask gets the path that it should have, which doesn't exist.
    """
    known: dict[str, str] = {}
    for name in walk(masks):
        if name.lower().endswith(MASKS):
            known.setdefault(name.rpartition(".")[0], name)
    pairs = {}
    for path in find_images(images):
        stem = path.relative_to(images).with_suffix("").as_posix()
        name = next((known[stem + ending] for ending in ENDINGS if stem + ending in known), f"{stem}.png")
        pairs[path] = masks / name
    return pairs


def read_masks(images: Path, masks: Path, table: Table) -> Scenes:
    """Read the images of a folder with the masks of the same names in another.

    Raises:
        UserError: images without a mask.
    """
    annotations = Annotations()
    annotations.class_ids, annotations.colours = dict(table.numbers), table.colours
    annotations.outlines = None  # nor are there boxes
    pairs = pair_masks(images, masks)
    missing = [path for path, mask in pairs.items() if not mask.is_file()]
    if missing:
        first = missing[0].name
        raise UserError(
            f"{len(missing):,} of {len(pairs):,} images in {images} have no mask in {masks}, such as {first}: add "
            f"a mask of the same name ({', '.join(MASKS)}), or move the image away."
        )
    for path, mask in pairs.items():
        annotations.add_image(path, path.stem, None, mask)
    return Scenes(annotations.finish(images), table.classes)
