"""Class maps: pictures that hold an id or a colour for each pixel, and the class numbers that they stand for."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.loading import MAX_PIXELS

logger = logging.getLogger(__name__)
IGNORE = 255  # a pixel of no class, or of one that isn't trained
BACKGROUND = "background"
MOST_CLASSES = 254  # besides the background: numbers are 8-bit, and 255 is taken
SAMPLE = 32  # maps that are looked at before training
NEARLY_ALL = 0.99  # of the pixels: with so many ignored, nothing is left to learn


class MapError(UserError):
    """A class map that cannot be read."""


def read_ids(path: Path, colours: bool = False) -> np.ndarray:
    """Read a class map as ids, uint8 or int64 (H, W); with `colours` as red * 65536 + green * 256 + blue.

    Raises:
        MapError: a file that is missing or damaged, or a picture in colour where ids are wanted.
    """
    try:
        with Image.open(path) as stored:
            if stored.width * stored.height > MAX_PIXELS:
                raise MapError(
                    f"Cannot read the class map {path}: {stored.width} x {stored.height} pixels are too many."
                )
            if colours:
                red, green, blue = np.asarray(stored.convert("RGB"), np.int64).transpose(2, 0, 1)
                return red << 16 | green << 8 | blue
            if stored.mode in ("1", "L", "P"):
                return np.asarray(stored).astype(np.uint8)
            if stored.mode.startswith("I"):
                return np.asarray(stored).astype(np.int64)
            mode = stored.mode
    except MapError:
        raise
    except Exception as error:  # Pillow's parsers raise errors of any type
        raise MapError(f"Cannot read the class map {path}: {' '.join(str(error).split())}.") from error
    raise MapError(
        f"Cannot read the class map {path}: it is a picture of the mode {mode} and must hold a class id for each "
        "pixel, so save it as a grey or palette PNG."
    )


def map_mode(path: Path) -> tuple[str, tuple[int, int]]:
    """Pillow's mode of a class map and its width and height; raises what `read_ids` does for a file that is none."""
    try:
        with Image.open(path) as stored:
            return stored.mode, stored.size
    except Exception as error:
        raise MapError(f"Cannot read the class map {path}: {' '.join(str(error).split())}.") from error


def read_class_map(path: Path, numbers: Mapping[int, int], height: int, width: int, colours: bool) -> np.ndarray:
    """Read a class map as class numbers uint8 (H, W): `numbers[id]` if that is 0 or more, else `IGNORE`.

    Raises:
        MapError: as `read_ids`, or a map of another size than its image.
    """
    ids = read_ids(path, colours)
    if ids.shape != (height, width):
        raise MapError(
            f"Cannot read the class map {path}: it has {ids.shape[1]} x {ids.shape[0]} pixels, its image {width} x "
            f"{height}."
        )
    kept = sorted((identifier, number) for identifier, number in numbers.items() if number >= 0)
    keys, values = np.array(kept, np.int64).reshape(-1, 2).T
    if ids.dtype == np.uint8:
        table = np.full(256, IGNORE, np.uint8)
        table[keys[(keys >= 0) & (keys < 256)]] = values[(keys >= 0) & (keys < 256)]
        mapped: np.ndarray = table[ids]
        return mapped
    if not kept:
        return np.full((height, width), IGNORE, np.uint8)
    places = np.searchsorted(keys, ids).clip(max=len(keys) - 1)
    return np.where(keys[places] == ids, values[places], IGNORE).astype(np.uint8)


def count_ids(path: Path, colours: bool = False) -> Counter[int]:
    """The number of pixels of each id in a class map; raises what `read_ids` does."""
    ids, counts = np.unique(read_ids(path, colours), return_counts=True)
    return Counter(dict(zip(ids.tolist(), counts.tolist(), strict=True)))


def list_ids(paths: Iterable[Path], colours: bool) -> list[list[int] | None]:
    """The ids in each class map; None for one that cannot be read."""

    def look(path: Path) -> list[int] | None:
        try:
            return sorted(count_ids(path, colours))
        except MapError:
            return None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, paths))


class Share(NamedTuple):
    """What the pixels of class maps are, as shares from 0 to 1."""

    classes: float
    background: float
    ignored: float
    unknown: tuple[int, ...]  # ids of no class, 255 for "ignore" left out, most frequent first


def share_out(counts: Counter[int], classes: Collection[int], background: bool, colours: bool) -> Share:
    """Sort the pixels of each id: those of `classes`, 0 where that is the background, and the others."""
    total = max(1, counts.total())
    known = sum(counts[identifier] for identifier in classes)
    behind = counts[0] if background else 0
    unknown = (
        number for number, _ in counts.most_common() if number not in classes and not (background and number == 0)
    )
    return Share(
        known / total,
        behind / total,
        (total - known - behind) / total,
        tuple(number for number in unknown if colours or number != IGNORE),
    )


def named_ids(ids: Sequence[int], colours: bool, most: int = 10) -> str:
    """Ids for a message, colours as #rrggbb."""
    shown = [f"#{number:06x}" if colours else str(number) for number in ids[:most]]
    return ", ".join(shown) + (f" and {len(ids) - most:,} more" if len(ids) > most else "")


def useless(share: Share, counts: Counter[int], classes: Mapping[int, str], colours: bool) -> str:
    """Why nothing can be learned from class maps, as a sentence without its full stop; "" if something can.

    Args:
        share: the pixels' shares.
        counts: pixels of each id.
        classes: id -> class name.
    """
    if share.classes > 0 and share.ignored < NEARLY_ALL:
        return ""
    what = "No pixel of the class maps is" if share.classes == 0 else f"Only {share.classes:.2%} of the pixels are"
    have = ", ".join(f"{named_ids([number], colours)} ({name})" for number, name in list(classes.items())[:10])
    found = named_ids([number for number, _ in counts.most_common()], colours)
    return f"{what} of a class: the maps hold {found}, and the classes are {have}"


def refuse_useless_maps(
    paths: Sequence[Path], classes: Mapping[int, str], background: bool, colours: bool, data: str
) -> None:
    """Look at some of the class maps, and at all of them if no class is found; log ids that are no class.

    Raises:
        MapError: a map that cannot be read.
        UserError: (nearly) all pixels are ignored or background, so a useless network would score 1.0.
    """
    step = max(1, len(paths) // SAMPLE)
    counts: Counter[int] = Counter()
    for path in paths[::step]:
        counts += count_ids(path, colours)
    for path in (path for number, path in enumerate(paths) if number % step):
        if any(counts[known] for known in classes):
            break
        counts += count_ids(path, colours)
    share = share_out(counts, classes, background, colours)
    if why := useless(share, counts, classes, colours):
        raise UserError(f"{why}: correct the maps or the classes of data={data}.")
    if share.unknown:
        logger.warning(
            "data=%s: %.1f %% of the pixels of the class maps are ignored; %s are no class.",
            data,
            100 * share.ignored,
            named_ids(share.unknown, colours),
        )
