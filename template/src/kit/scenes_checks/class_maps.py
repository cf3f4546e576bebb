"""Check class maps: each is read, and their ids are compared with the classes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from src.kit.checks import KINDS, Facts, Finding, Kind
from src.kit.config import UserError
from src.kit.scenes import count_ids, map_mode, named_ids, share_out, useless

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


class Classes(NamedTuple):
    """What ids mean in the class maps of a split."""

    names: Mapping[int, str]  # id, or 0xrrggbb, -> class
    background: bool  # whether 0 is the background
    colours: bool = False


def map_findings(
    root: Path, split: str, maps: Mapping[str, Path], facts: Mapping[str, Facts], classes: Classes
) -> Iterator[Finding]:
    """Check the class maps of a split.

    Args:
        maps: image -> its map; images as in `facts`.
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
    share = share_out(counts, classes.names, classes.background)
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
