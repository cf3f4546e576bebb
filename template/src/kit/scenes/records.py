"""What the annotations say of one image; nothing is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.kit.config import UserError
from src.kit.scenes.outlines import Outline


@dataclass(frozen=True)
class Record:
    """What the annotations say of one image."""

    path: Path
    image_id: int | str
    size: tuple[int, int] | None  # (width, height) in pixels; None: boxes and outlines are fractions of the image
    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2
    labels: np.ndarray  # int64 (M,)
    crowd: np.ndarray  # bool (M,)
    outlines: list[Outline] | None  # None where the data set has none
    class_map: Path | None  # PNG of class ids

    def in_pixels(self, width: int, height: int) -> "Record":
        """Everything in pixels of the decoded image of that size.

        Raises:
            UserError: the annotations are for another size.
        """
        if self.size is not None and self.size != (width, height):
            raise UserError(
                f"{self.path} has {width} x {height} pixels once it is rotated as its EXIF data says, but its "
                f"annotations are for {self.size[0]} x {self.size[1]}: annotate the picture as it is shown."
            )
        if self.size is not None:
            return self
        unit = np.array([width, height], np.float32)
        outlines = self.outlines and [
            o if isinstance(o, Mapping) else [ring * unit for ring in o] for o in self.outlines
        ]
        return replace(self, size=(width, height), boxes=self.boxes * np.tile(unit, 2), outlines=outlines)

    def renumber(self, numbers: np.ndarray) -> "Record":
        """Give class k the number `numbers[k]`, and drop its objects where that is -1."""
        labels = numbers[self.labels]
        kept = np.flatnonzero(labels >= 0)
        outlines = None if self.outlines is None else [self.outlines[place] for place in kept]
        return replace(self, boxes=self.boxes[kept], labels=labels[kept], crowd=self.crowd[kept], outlines=outlines)
