"""The annotations of a whole data set, in any format, in a few arrays, without decoding images.

`Outlines` holds polygons and run-length codes, `Record` the annotations of one image, `Annotations` those of all.
"""

import logging
import math
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.loading import ORIENTATION, is_tiff, read_tiff_header
from src.kit.scenes.class_maps import list_ids

logger = logging.getLogger(__name__)
LEAST_SIDE = 1e-6  # of a box, in the unit of its coordinates
ADVICE = "`python scripts/validate_data.py` with the same data keys lists all that is wrong."
FAR = 1e7  # where coordinates of outlines are cut off: float32 is exact to a pixel up to there
# one object: rings float32 (P, 2) of x, y; or {"size": [H, W], "counts": bytes}, COCO's compressed run-length code
Outline = Sequence[np.ndarray] | Mapping[str, Any]


def shown_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file after its EXIF rotation, without decoding it."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if is_tiff(start):  # Pillow opens only some of them
            header = read_tiff_header(path.read_bytes())
            size = header.width, header.height
            return size[::-1] if header.orientation >= 5 else size
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
    except Exception as error:  # Pillow's parsers raise errors of any type
        raise UserError(f"Cannot read {path}: {error}. Replace it or leave it out.") from error


def rasterise(outline: Outline, height: int, width: int) -> np.ndarray:
    """Draw an outline in pixels as a mask bool (H, W), as pycocotools does.

    Raises:
        ValueError: a run-length code that does not fill its image.
    """
    from pycocotools import mask

    drawn: np.ndarray = mask.decode(encode_outline(outline, height, width)).astype(bool)
    return drawn


def extent(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of an array (H, W) between its first and last values that aren't zero; empty if all are."""
    used = [np.flatnonzero(mask.any(axis=axis)).tolist() or [0, -1] for axis in (1, 0)]
    rows, columns = (slice(places[0], places[-1] + 1) for places in used)
    return rows, columns


def encode_outline(outline: Outline, height: int, width: int) -> Mapping[str, Any]:
    """Encode an outline in pixels as a compressed run-length code."""
    from pycocotools import mask

    if isinstance(outline, Mapping):
        return outline
    # COCO gives hundredths of a pixel: rounding undoes float32, which moves points over pycocotools' grid of fifths
    rings = [clip_ring(np.round(ring.astype(np.float64), 3), width, height) for ring in outline]
    drawn = [ring.ravel().tolist() for ring in rings if len(ring) >= 3] or [[0.0] * 6]
    code: Mapping[str, Any] = mask.merge(mask.frPyObjects(drawn, height, width))
    return code


def clip_ring(ring: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut off what is farther than an image's size from the image: float64 (P, 2) -> (Q, 2).

    pycocotools takes memory for each pixel of an edge, and one of 100 million pixels ends the process. It handles what
    is near by itself. This is Sutherland and Hodgman's algorithm.
    """
    for axis, length in enumerate((width, height)):
        for sign, edge in ((1, -length), (-1, 2 * length)):
            inside = sign * (ring[:, axis] - edge) >= 0
            if inside.all():
                continue
            following, crosses = np.roll(ring, -1, axis=0), inside != np.roll(inside, -1)
            step = following - ring
            part = (edge - ring[:, axis]) / np.where(crosses, step[:, axis], 1)
            cut = ring + part[:, None] * step
            ring = np.stack([ring, cut], axis=1).reshape(-1, 2)[np.stack([inside, crosses], axis=1).ravel()]
    return ring


class Outlines:
    """The outlines of many objects in a few arrays: COCO's 860,000 fit into 200 MB."""

    def __init__(self) -> None:
        self.points = array("f")  # x, y, x, y, ... of all rings
        self.ring_ends = array("q")  # where each ring ends in `points`
        self.object_ends = array("q")  # where each object ends in `ring_ends`
        self.codes: dict[int, Mapping[str, Any]] = {}  # object -> run-length code
        self.missing = 0
        self.first = ""  # names the first object without an outline

    def __len__(self) -> int:
        return len(self.object_ends)

    def append(self, outline: Sequence[Sequence[float]] | Mapping[str, Any] | None, where: str = "") -> None:
        """Add an object's rings of x, y, x, y, ..., its run-length code, or None where it has no outline.

        Args:
            where: names an object without one for messages.
        """
        if isinstance(outline, Mapping):
            self.codes[len(self)] = outline
        elif outline is None:
            self.missing += 1
            self.first = self.first or where
        else:
            for ring in outline:
                near = (
                    ring if min(ring) >= -FAR and max(ring) <= FAR else [max(-FAR, min(FAR, value)) for value in ring]
                )
                self.points.extend(near)
                self.ring_ends.append(len(self.points))
        self.object_ends.append(len(self.ring_ends))

    def drop_code(self, number: int, where: str) -> None:
        """Take away an object's run-length code."""
        del self.codes[number]
        self.missing += 1
        self.first = self.first or where

    def __getitem__(self, number: int) -> Outline:
        if number in self.codes:
            return self.codes[number]
        first, last = (self.object_ends[number - 1] if number else 0), self.object_ends[number]
        rings = []
        for ring in range(first, last):
            start = self.ring_ends[ring - 1] if ring else 0
            rings.append(np.array(self.points[start : self.ring_ends[ring]], np.float32).reshape(-1, 2))
        return rings


@dataclass(frozen=True)
class Record:
    """The annotations of one image."""

    path: Path
    image_id: int | str
    size: tuple[int, int] | None  # (width, height) in pixels; None: boxes and outlines are fractions of the image
    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2
    labels: np.ndarray  # int64 (M,)
    crowd: np.ndarray  # bool (M,)
    outlines: list[Outline] | None  # None where the data set has none
    class_map: Path | None  # PNG of class ids
    areas: np.ndarray = field(default_factory=lambda: np.empty(0))  # float64 (M,) in the file, NaN where it gives none

    def in_pixels(self, width: int, height: int) -> "Record":
        """Convert fractions of the image to pixels of the decoded image.

        Raises:
            UserError: the annotations are for another image size.
        """
        if self.size is not None and self.size != (width, height):
            raise UserError(
                f"Cannot read {self.path}: it has {width} x {height} pixels after the rotation in its EXIF data, and "
                f"its annotations are for {self.size[0]} x {self.size[1]}: annotate the rotated image."
            )
        if self.size is not None:
            return self
        unit = np.array([width, height], np.float32)
        outlines = self.outlines and [
            o if isinstance(o, Mapping) else [ring * unit for ring in o] for o in self.outlines
        ]
        return replace(self, size=(width, height), boxes=self.boxes * np.tile(unit, 2), outlines=outlines)

    def renumber(self, numbers: np.ndarray) -> "Record":
        """Give class k the number `numbers[k]`, or drop its objects where that is -1."""
        labels = numbers[self.labels]
        kept = np.flatnonzero(labels >= 0)
        outlines = None if self.outlines is None else [self.outlines[row] for row in kept]
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=labels[kept],
            crowd=self.crowd[kept],
            outlines=outlines,
            areas=self.areas[kept],
        )


class Annotations:
    """Add all images and objects in any order, then call `finish`: after that, it is read-only.

    Boxes are clipped to their image and dropped if nothing is left. The data set has outlines only if every object has
    one. `finish` logs how many boxes and outlines this concerns.
    """

    def __init__(self) -> None:
        self.class_ids: dict[int, int] = {}  # class id in the files -> class number
        self.paths: list[str] = []  # 118,000 Path objects would take 60 MB
        self.image_ids: list[int | str] = []
        self.sizes = array("q")  # width and height of each image, zeros where unknown
        self.class_maps: list[Path | None] = []
        self.colours = False  # whether class maps hold colours, which `class_ids` then has as 0xrrggbb
        self.owners: Any = array("q")
        self.boxes: Any = array("d")
        self.labels: Any = array("q")
        self.crowd: Any = array("b")
        self.areas: Any = array("d")
        self.outlines: Outlines | None = Outlines()
        self.without_outline = ""  # names the first object without one
        self.shown: dict[int, tuple[int, int]] = {}  # image -> width and height that its file has told
        self.rows = np.empty(0, np.int64)  # the index of each object in `outlines`
        self.starts = np.empty(0, np.int64)  # objects starts[i] to starts[i + 1] are image i's

    def __len__(self) -> int:
        return len(self.paths)

    def add_image(
        self, path: Path, image_id: int | str, size: tuple[int, int] | None = None, class_map: Path | None = None
    ) -> int:
        """Add an image and return its number; `size` is (width, height), None for coordinates in fractions of it."""
        self.paths.append(str(path))
        self.image_ids.append(image_id)
        self.sizes.extend(size or (0, 0))
        self.class_maps.append(class_map)
        return len(self.paths) - 1

    def add_object(
        self,
        image: int,
        box: Sequence[float],
        label: int,
        crowd: bool = False,
        outline: Sequence[Sequence[float]] | Mapping[str, Any] | None = None,
        where: str = "",
        area: float = math.nan,
    ) -> None:
        """Add an object to image number `image`; `box` is x1, y1, x2, y2, the others as in `Outlines.append`.

        `area`, in pixels, only tells small objects from large ones.
        """
        assert self.outlines is not None
        self.owners.append(image)
        self.boxes.extend(box)
        self.labels.append(label)
        self.crowd.append(crowd)
        self.areas.append(area)
        self.outlines.append(outline, where)

    def finish(self, source: Path) -> "Annotations":
        """Clip the boxes and sort the objects by image; the log names `source`."""
        sizes = np.array(self.sizes, np.int64).reshape(-1, 2)
        owners, boxes = np.array(self.owners, np.int64), np.array(self.boxes, np.float64).reshape(-1, 4)
        edges = np.where(sizes > 0, sizes, 1)[owners]
        clipped = np.stack([boxes[:, side].clip(0, edges[:, side % 2]) for side in range(4)], axis=1).astype(np.float32)
        kept = np.flatnonzero((clipped[:, 2:] - clipped[:, :2] >= LEAST_SIDE).all(axis=1))
        # publishers round: count only moves of more than a hundredth of the unit
        moved = int((np.abs(clipped - boxes)[kept] > 0.01 * edges[kept][:, [0, 1, 0, 1]].clip(max=1)).any(axis=1).sum())
        if moved or len(kept) < len(boxes):
            logger.warning(
                "%s: %d of %d boxes reach outside their image and are clipped, %d are dropped since nothing of them is "
                "inside.",
                source,
                moved,
                len(boxes),
                len(boxes) - len(kept),
            )
        self.rows = kept[np.argsort(owners[kept], kind="stable")]
        self.starts = np.searchsorted(owners[self.rows], np.arange(len(self) + 1))
        self.boxes, self.labels = clipped[self.rows], np.array(self.labels, np.int64)[self.rows]
        self.crowd = np.array(self.crowd, bool)[self.rows]
        self.areas = np.array(self.areas, np.float64)[self.rows]
        self.owners = None
        missing = self.outlines.missing if self.outlines else 0
        if missing:
            assert self.outlines is not None
            self.without_outline = self.outlines.first
            if missing < len(boxes):
                logger.warning(
                    "%s: %d of %d objects have no outline%s, so the outlines of the others are not used.",
                    source,
                    missing,
                    len(boxes),
                    f", such as {self.without_outline}" if self.without_outline else "",
                )
            self.outlines = None
        return self

    def sizes_of(self, images: Sequence[int]) -> list[tuple[int, int]]:
        """Heights and widths in pixels, read from the files where the annotations don't have them.

        Raises:
            UserError: a file that is missing or damaged.
        """
        unknown = [image for image in images if not self.sizes[2 * image] and image not in self.shown]
        if unknown:
            with ThreadPoolExecutor() as pool:
                paths = (Path(self.paths[image]) for image in unknown)
                self.shown.update(zip(unknown, pool.map(shown_size, paths), strict=True))
        known = (self.shown.get(image) or tuple(self.sizes[2 * image : 2 * image + 2]) for image in images)
        return [(height, width) for width, height in known]

    def labels_of(self, image: int) -> np.ndarray:
        """The class numbers int64 (M,) of one image's objects; where no image has any, of its class map."""
        return self.mapped_labels[image] if self.only_maps else self.labels[self.starts[image] : self.starts[image + 1]]

    @property
    def only_maps(self) -> bool:
        """Whether there are class maps and no objects."""
        return not len(self.labels) and any(self.class_maps)

    @cached_property
    def mapped_labels(self) -> list[np.ndarray]:
        """The classes in each image's class map, all of them where it cannot be read; reads them all."""
        known = self.class_ids
        shown = list_ids((path for path in self.class_maps if path is not None), self.colours)
        labels = [known.values() if ids is None else [known[each] for each in ids if each in known] for ids in shown]
        rows = iter([np.array(list(each), np.int64) for each in labels])
        return [np.empty(0, np.int64) if path is None else next(rows) for path in self.class_maps]

    def record(self, image: int) -> Record:
        """The annotations of one image."""
        part = slice(self.starts[image], self.starts[image + 1])
        width, height = self.sizes[2 * image : 2 * image + 2]
        outlines = None if self.outlines is None else [self.outlines[int(row)] for row in self.rows[part]]
        return Record(
            Path(self.paths[image]),
            self.image_ids[image],
            (width, height) if width else None,
            self.boxes[part],
            self.labels[part],
            self.crowd[part],
            outlines,
            self.class_maps[image],
            self.areas[part],
        )
