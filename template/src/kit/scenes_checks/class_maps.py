"""Check class maps: each is read, and their ids are compared with the classes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from src.kit.checks import KINDS, Entry, Facts, Finding, ImageFiles, Kind
from src.kit.config import UserError
from src.kit.loading import walk
from src.kit.scenes import (
    count_ids,
    find_mask_splits,
    map_mode,
    named_ids,
    pair_masks,
    read_table,
    share_out,
    useless,
)

MANY = 0.5  # ignored pixels, from which on they are worth a warning
FIX = "Correct the map, or move the image away with --quarantine."
KINDS.update(
    map_missing=Kind("error", "Images without a class map", "Add the map, or move the image away with --quarantine."),
    map_unreadable=Kind("error", "Class maps that cannot be read", FIX),
    map_useless=Kind("error", "Class maps without a class", "Correct the ids in the maps, or those of the classes."),
    map_unknown=Kind(
        "warning", "Ids of no class in class maps", "These pixels are ignored. Add the class or correct them."
    ),
    map_ignored=Kind("warning", "Class maps that are mostly ignored", "Check that so few pixels are meant to count."),
    map_partly=Kind("note", "Ignored pixels in class maps", "Nothing is learned from them."),
    map_palette=Kind("note", "Palette class maps", "Their indices are read as ids, and not their colours."),
)


class MaskFolder(ImageFiles):
    """Check a folder of images and masks."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.masks: dict[str, dict[str, Path]] = {}  # split -> image -> its mask
        self.names: dict[int, str] = {}
        self.colours = False
        splits = find_mask_splits(root)
        try:
            table = read_table(root)
            self.classes, self.colours = table.classes, table.colours
            self.names = {number: table.classes[place] for number, place in table.numbers.items()}
        except UserError as error:
            self.add("structure", "classes.csv", str(error))
        for split, (images, masks) in splits.items():
            pairs = pair_masks(images, masks)
            self.masks[split] = {self.relative(image): mask for image, mask in pairs.items()}
            self.entries += [Entry(image, split) for image in self.masks[split]]
            self.add_strangers(images)
            for name in sorted({masks / name for name in walk(masks)} - set(pairs.values())):
                self.add("label_without_image", self.relative(name), "No image has this mask.")

    def check(self, facts: Mapping[str, Facts]) -> None:
        """Check every mask."""
        classes = Classes(self.names, 0 not in self.names, self.colours)
        for split, masks in self.masks.items():
            self.counts[split].update(dict.fromkeys(self.classes, 0))
            if self.names:
                self.findings += map_findings(self.root, split, masks, facts, classes, self.counts[split])
        self.check_balance()

    def companions(self, path: str) -> list[str]:
        """The image's mask if it exists."""
        masks = (masks[path] for masks in self.masks.values() if path in masks)
        return [self.relative(mask) for mask in masks if mask.is_file()]


class Classes(NamedTuple):
    """What ids mean in the class maps of a split."""

    names: Mapping[int, str]  # id, or 0xrrggbb, -> class
    background: bool  # whether 0 is the background
    colours: bool = False


def map_findings(
    root: Path, split: str, maps: Mapping[str, Path], facts: Mapping[str, Facts], classes: Classes, images: Counter[str]
) -> Iterator[Finding]:
    """Check the class maps of a split.

    Args:
        maps: image -> its map; images as in `facts`.
        images: counts the images that show each class.
    """
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(lambda path: read_map(path, classes.colours), maps.values()))
    counts: Counter[int] = Counter()
    modes: Counter[str] = Counter()
    for (image, path), (found, mode, size, problem) in zip(maps.items(), read, strict=True):
        name = path.relative_to(root).as_posix()
        if problem:
            kind = "map_unreadable" if path.exists() else "map_missing"
            yield Finding(kind, image, problem if path.exists() else f"{name} does not exist.")
        elif facts[image].width and size != facts[image].shown:
            (width, height), (wide, high) = facts[image].shown, size
            yield Finding("map_unreadable", image, f"{name} has {wide} x {high} pixels, its image {width} x {height}.")
        else:
            counts += found
            images.update(name for number, name in classes.names.items() if found[number])
            modes[mode] += 1
    yield from split_findings(split, counts, classes, modes["P"] if not classes.colours else 0)


def read_map(path: Path, colours: bool) -> tuple[Counter[int], str, tuple[int, int], str]:
    """Pixels of each id, mode, (width, height), and why it cannot be read."""
    try:
        mode, size = map_mode(path)
        return count_ids(path, colours), mode, size, ""
    except UserError as error:
        return Counter(), "", (0, 0), str(error)


def split_findings(split: str, counts: Counter[int], classes: Classes, palettes: int) -> Iterator[Finding]:
    """What the pixels of a split's maps say together."""
    if palettes:
        yield Finding("map_palette", split, f"{palettes:,} of its maps have a palette.")
    if not counts:
        return
    share = share_out(counts, classes.names, classes.background, classes.colours)
    if why := useless(share, counts, classes.names, classes.colours):
        yield Finding("map_useless", split, f"{why}.")
        return
    if share.unknown:
        ids = named_ids(share.unknown, classes.colours)
        have = named_ids(list(classes.names), classes.colours)
        part = sum(counts[number] for number in share.unknown) / counts.total()
        yield Finding("map_unknown", split, f"{part:.2%} of the pixels have the ids {ids}; the classes have {have}.")
    if share.ignored:
        kind = "map_ignored" if share.ignored >= MANY else "map_partly"
        yield Finding(kind, split, f"{share.ignored:.1%} of the pixels are ignored, {share.background:.1%} background.")
