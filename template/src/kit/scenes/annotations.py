"""The annotations of a whole data set in a few arrays, whatever format they came from."""

import logging
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.scenes.outlines import Outlines
from src.kit.scenes.records import Record

logger = logging.getLogger(__name__)
LEAST_SIDE = 1e-6  # of a box, in the unit of its coordinates


class Annotations:
    """Add all images and objects in any order, then `finish`: from then on it is read only.

    A box is clipped to its image and dropped where nothing of it is left. The data set has outlines only if every one
    of its objects has one. Both are counted and logged once.
    """

    def __init__(self) -> None:
        self.class_ids: dict[int, int] = {}  # the id of a class in the files -> its number
        self.paths: list[str] = []  # 118,000 Path objects would take 60 MB
        self.image_ids: list[int | str] = []
        self.sizes = array("q")  # width and height of each image, zeros where unknown
        self.class_maps: list[Path | None] = []
        self.owners: Any = array("q")
        self.boxes: Any = array("d")
        self.labels: Any = array("q")
        self.crowd: Any = array("b")
        self.outlines: Outlines | None = Outlines()
        self.rows = np.empty(0, np.int64)  # the place of each object in `outlines`
        self.starts = np.empty(0, np.int64)  # objects starts[i] to starts[i + 1] are image i's

    def __len__(self) -> int:
        return len(self.paths)

    def add_image(
        self, path: Path, image_id: int | str, size: tuple[int, int] | None = None, class_map: Path | None = None
    ) -> int:
        """Add an image and return its number; without a `size` its coordinates are fractions of the image."""
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
    ) -> None:
        """Add an object of image number `image`: x1, y1, x2, y2, its class, and what `Outlines.append` takes."""
        assert self.outlines is not None
        self.owners.append(image)
        self.boxes.extend(box)
        self.labels.append(label)
        self.crowd.append(crowd)
        self.outlines.append(outline)

    def finish(self, source: Path) -> "Annotations":
        """Clip, sort by image and pack; `source` is named in the log."""
        sizes = np.array(self.sizes, np.int64).reshape(-1, 2)
        owners, boxes = np.array(self.owners, np.int64), np.array(self.boxes, np.float64).reshape(-1, 4)
        edges = np.where(sizes > 0, sizes, 1)[owners]
        clipped = np.stack([boxes[:, side].clip(0, edges[:, side % 2]) for side in range(4)], axis=1).astype(np.float32)
        kept = np.flatnonzero((clipped[:, 2:] - clipped[:, :2] >= LEAST_SIDE).all(axis=1))
        # beyond a hundredth of the unit: publishers round
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
        self.owners = None
        missing = self.outlines.missing if self.outlines else 0
        if missing:
            if missing < len(boxes):
                logger.warning(
                    "%s: %d of %d objects have no outline, so the outlines of the others are not used.",
                    source,
                    missing,
                    len(boxes),
                )
            self.outlines = None
        return self

    def labels_of(self, image: int) -> np.ndarray:
        """Class numbers int64 (M,) of one image's objects."""
        return self.labels[self.starts[image] : self.starts[image + 1]]

    def record(self, image: int) -> Record:
        """Everything there is to know of one image."""
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
        )
