"""Annotated images: `Sample` is one of them in memory, `Scenes` a data set of them that is read lazily."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.kit.config import UserError
from src.kit.loading import open_rgb
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.class_maps import IGNORE as IGNORE  # where users of Sample look for it
from src.kit.scenes.class_maps import read_class_map
from src.kit.scenes.outlines import rasterise
from src.kit.scenes.records import Record


@dataclass(frozen=True)
class Sample:
    """One image with its M objects; x runs to the right, y down, and pixel (0, 0) covers 0 to 1 both ways.

    An object smaller than a pixel may have an empty mask; its box never is.
    """

    image: np.ndarray  # uint8 (H, W, 3), RGB, rotated as EXIF says
    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2 in pixels, 0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H
    labels: np.ndarray  # int64 (M,), numbers into the data set's classes
    crowd: np.ndarray  # bool (M,): a region of many objects (COCO's iscrowd), or one that should not count
    masks: np.ndarray | None = None  # bool (M, H, W), None where the data set has no outlines
    semantic: np.ndarray | None = None  # uint8 (H, W) class numbers, 255 = ignore, None where it has no class maps
    image_id: int | str = 0  # the annotation file's image id, or the file's stem

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        count = len(self.boxes)
        assert (self.image.shape, self.image.dtype) == ((height, width, 3), np.uint8), self.image.shape
        assert (self.boxes.shape, self.boxes.dtype) == ((count, 4), np.float32), (self.boxes.shape, self.boxes.dtype)
        assert (self.boxes[:, :2] >= 0).all(), self.boxes
        assert (self.boxes[:, 2:] <= (width, height)).all(), (self.boxes, width, height)
        assert (self.labels.shape, self.labels.dtype) == ((count,), np.int64), (self.labels.shape, self.labels.dtype)
        assert (self.crowd.shape, self.crowd.dtype) == ((count,), np.bool_), (self.crowd.shape, self.crowd.dtype)
        if self.masks is not None:
            assert (self.masks.shape, self.masks.dtype) == ((count, height, width), np.bool_), self.masks.shape
        if self.semantic is not None:
            assert (self.semantic.shape, self.semantic.dtype) == ((height, width), np.uint8), self.semantic.shape


class Scenes:
    """Annotated images of one split. Images are decoded and outlines rasterised only in `read`, from any thread."""

    content = "boxes or outlines in each image"  # what tasks learn from

    def __init__(
        self,
        annotations: Annotations,
        classes: Sequence[str],
        flippable: bool = True,
        indices: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
    ) -> None:
        """`indices` chooses images; `numbers` int64 (K,) gives each annotated class its number here, -1 to drop it."""
        self.annotations, self.classes, self.flippable = annotations, tuple(classes), flippable
        self.indices = np.arange(len(annotations)) if indices is None else indices
        self.numbers = np.arange(len(self.classes)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def has_outlines(self) -> bool:
        """Whether `Sample.masks` is there."""
        return self.annotations.outlines is not None

    @property
    def has_class_maps(self) -> bool:
        """Whether `Sample.semantic` is there, in one image at least."""
        return any(self.annotations.class_maps)

    def path(self, index: int) -> Path:
        """One image's file."""
        return Path(self.annotations.paths[int(self.indices[index])])

    def labels(self, index: int) -> np.ndarray:
        """Class numbers int64 (M,) of one image's objects; decodes nothing."""
        found = self.numbers[self.annotations.labels_of(int(self.indices[index]))]
        return found[found >= 0]

    def has_classes(self) -> np.ndarray:
        """Which classes each image shows, bool (N, K): what stratified splits need."""
        shown = np.zeros((len(self), len(self.classes)), bool)
        for index in range(len(self)):
            shown[index, self.labels(index)] = True
        return shown

    def class_counts(self) -> np.ndarray:
        """How many objects each class has, int64 (K,)."""
        found = [self.labels(index) for index in range(len(self))]
        return np.bincount(np.concatenate([np.empty(0, np.int64), *found]), minlength=len(self.classes))

    def record(self, index: int) -> Record:
        """What the annotations say of one image, with the class numbers of this data set; decodes nothing."""
        return self.annotations.record(int(self.indices[index])).renumber(self.numbers)

    def read(self, index: int) -> Sample:
        """Decode one image and rasterise its outlines.

        Raises:
            UserError: a file that is missing or damaged, or of another size than its annotations say.
        """
        image = open_rgb(self.path(index))
        height, width = image.shape[:2]
        record = self.record(index).in_pixels(width, height)
        masks = None
        if record.outlines is not None:
            masks = np.zeros((len(record.outlines), height, width), bool)
            for place, outline in enumerate(record.outlines):
                try:
                    masks[place] = rasterise(outline, height, width)
                except ValueError as error:
                    raise UserError(f"The outlines of {record.path} cannot be drawn: {error}.") from error
        semantic = None
        if record.class_map is not None:
            numbers = {identifier: self.numbers[number] for identifier, number in self.annotations.class_ids.items()}
            semantic = read_class_map(record.class_map, numbers, height, width)
        return Sample(image, record.boxes, record.labels, record.crowd, masks, semantic, record.image_id)

    def take(self, indices: np.ndarray) -> "Scenes":
        """The images at these indices, in this order."""
        return Scenes(self.annotations, self.classes, self.flippable, self.indices[indices], self.numbers)

    def take_classes(self, kept: Sequence[int]) -> "Scenes":
        """The images with an object of these classes, and only those objects; `kept[i]` becomes class i."""
        places = np.full(len(self.classes) + 1, -1, np.int64)  # the last one for classes that are dropped already
        places[list(kept)] = np.arange(len(kept))
        classes = [self.classes[number] for number in kept]
        part = Scenes(self.annotations, classes, self.flippable, self.indices, places[self.numbers])
        return part.take(np.flatnonzero([len(part.labels(index)) > 0 for index in range(len(part))]))
