"""Annotated images: `Sample` is one image in memory, `Scenes` a data set of them that is read lazily.

`choose_scenes` makes the train, val and test splits from those of a data set's files.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.kit.config import UserError, unknown
from src.kit.inference import Size
from src.kit.loading import PLAIN, Reading, count_channels, list_broken, open_rgb
from src.kit.scenes.annotations import Annotations, Outline, Record, rasterise, shown_size
from src.kit.scenes.class_maps import BACKGROUND, IGNORE, MOST_CLASSES, MapError, read_class_map, refuse_useless_maps
from src.kit.splitting import SplitRule


@dataclass(frozen=True)
class Sample:
    """One image with its M objects; x runs to the right, y down, and pixel (0, 0) covers 0 to 1 both ways.

    An object smaller than a pixel may have an empty mask, but never an empty box.
    """

    image: np.ndarray  # uint8 (H, W, C), RGB or the bands that `data.bands` chooses, rotated as EXIF says
    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2 in pixels, 0 <= x1 < x2 <= W and 0 <= y1 < y2 <= H
    labels: np.ndarray  # int64 (M,), numbers into the data set's classes
    crowd: np.ndarray  # bool (M,): a region of many objects (COCO's iscrowd), or an object that doesn't count
    masks: np.ndarray | None = None  # bool (M, H, W), None where the data set has no outlines
    # uint8 (H, W) numbers of `Scenes.pixel_classes`, 255 = ignore; only in what `Scenes.as_class_maps` reads
    semantic: np.ndarray | None = None
    image_id: int | str = 0  # the annotation file's image id, or the file's stem

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        count = len(self.boxes)
        assert (self.image.ndim, self.image.dtype) == (3, np.uint8), self.image.shape
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
    """Annotated images of one split. Only `read` decodes images and rasterises outlines; it is thread-safe."""

    content = "boxes or outlines in each image"  # what tasks learn from

    def __init__(
        self,
        annotations: Annotations,
        classes: Sequence[str],
        flippable: bool = True,
        indices: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
        mapped: bool = False,
    ) -> None:
        """`indices` selects images; `numbers` int64 (K,) maps the annotated classes to numbers here, -1 drops one.

        `mapped` is what `as_class_maps` says.
        """
        self.mapped = mapped
        self.annotations, self.classes, self.flippable = annotations, tuple(classes), flippable
        self.indices = np.arange(len(annotations)) if indices is None else indices
        self.numbers = np.arange(len(self.classes)) if numbers is None else numbers
        self.reading = PLAIN

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def channels(self) -> int:
        """The channels of the images."""
        return count_channels(self.reading)

    @property
    def has_outlines(self) -> bool:
        """Whether samples have `masks`."""
        return self.annotations.outlines is not None

    @property
    def has_class_maps(self) -> bool:
        """Whether there are class maps, which then count instead of outlines."""
        return any(self.annotations.class_maps)

    @property
    def has_background(self) -> bool:
        """Whether pixels of no object are a class of their own: in class maps the id 0, unless that is a category."""
        return not (self.has_class_maps and 0 in self.annotations.class_ids)

    @property
    def pixel_classes(self) -> tuple[str, ...]:
        """The names of the numbers in class maps."""
        return (BACKGROUND, *self.classes) if self.has_background else self.classes

    def as_class_maps(self) -> "Scenes":
        """The same images, read with class maps (`Sample.semantic`), drawn from the outlines where there are none."""
        part = copy(self)
        part.mapped = True
        return part

    def refuse_useless(self, data: str) -> None:
        """Refuse data that segmentation cannot learn from.

        Raises:
            UserError: more classes than 8 bits can number, a single one, or class maps that cannot be read or have no
                pixels of the classes.
        """
        if len(self.classes) > MOST_CLASSES:
            raise UserError(
                f"data={data} has {len(self.classes):,} classes, and class maps can number {MOST_CLASSES}: choose some "
                "of them with data.classes."
            )
        if len(self.pixel_classes) < 2:
            raise UserError(
                f"data={data} has the one class {self.classes[0]} with the id 0 and no background, so there is nothing "
                "to tell apart: give the class another id."
            )
        maps = [self.annotations.class_maps[int(index)] for index in self.indices]
        if self.has_class_maps:
            ids = self.annotations.class_ids.items()
            kept = {number: self.classes[self.numbers[k]] for number, k in ids if self.numbers[k] >= 0}
            paths = [path for path in maps if path is not None]
            try:
                refuse_useless_maps(paths, kept, self.has_background, self.annotations.colours, data)
            except MapError as error:
                raise list_broken(self, self.reading, error) from error

    def path(self, index: int) -> Path:
        """One image's file."""
        return Path(self.annotations.paths[int(self.indices[index])])

    def sizes(self, indices: np.ndarray | slice = slice(None)) -> list[Size]:
        """Heights and widths of these images in pixels, without decoding them; raises what `sizes_of` does."""
        return self.annotations.sizes_of(self.indices[indices].tolist())

    def by_shape(self) -> "Scenes":
        """The same images, from the tallest to the widest: neighbours waste little of a `rectangle`."""
        heights, widths = np.array(self.sizes(), np.float64).reshape(-1, 2).T
        return self.take(np.argsort(widths / heights, kind="stable"))

    def labels(self, index: int) -> np.ndarray:
        """The class numbers int64 (M,) of one image's objects, without decoding it.

        Where no image has objects, these are the classes in its class map; all maps are read the first time.
        """
        labels = self.numbers[self.annotations.labels_of(int(self.indices[index]))]
        return labels[labels >= 0]

    def has_classes(self) -> np.ndarray:
        """The classes that each image shows, bool (N, K), for stratified splits."""
        shown = np.zeros((len(self), len(self.classes)), bool)
        for index in range(len(self)):
            shown[index, self.labels(index)] = True
        return shown

    def class_counts(self) -> np.ndarray:
        """The number of objects of each class, int64 (K,)."""
        labels = [self.labels(index) for index in range(len(self))]
        return np.bincount(np.concatenate([np.empty(0, np.int64), *labels]), minlength=len(self.classes))

    def pixel_counts(self, most: int) -> np.ndarray:
        """The pixels of each of `pixel_classes`, int64 (K,), in at most so many images, evenly spaced."""
        counts = np.zeros(256, np.int64)
        for index in np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(int)):
            counts += np.bincount(class_map(self.read(int(index))).ravel(), minlength=256)
        return counts[: len(self.pixel_classes)]

    def record(self, index: int) -> Record:
        """The annotations of one image, with this data set's class numbers, without decoding it."""
        return self.annotations.record(int(self.indices[index])).renumber(self.numbers)

    def read(self, index: int) -> Sample:
        """Decode one image and rasterise its outlines, or read its class map.

        Raises:
            UserError: a file that is missing, damaged or not of the size in its annotations; the message names all such
                files.
        """
        try:
            return self.open(index)
        except UserError as error:
            raise list_broken(self, self.reading, error) from error

    def open(self, index: int) -> Sample:
        """`read`, with an error for this image only."""
        image = open_rgb(self.path(index), self.reading)
        height, width = image.shape[:2]
        record = self.record(index).in_pixels(width, height)
        masks = None
        if record.outlines is not None and not (self.mapped and record.class_map):
            masks = np.zeros((len(record.outlines), height, width), bool)
            for row, outline in enumerate(record.outlines):
                masks[row] = draw(outline, height, width, record.path)
        sample = Sample(image, record.boxes, record.labels, record.crowd, masks, None, record.image_id)
        if not self.mapped:
            return sample
        semantic = self.read_map(record.class_map, height, width) if record.class_map else class_map(sample)
        return replace(sample, masks=None, semantic=semantic)

    def check_annotations(self, index: int) -> None:
        """Raise what `read` would for an image's annotations, without decoding the image."""
        record = self.record(index)
        width, height = shown_size(record.path)
        record = record.in_pixels(width, height)
        for outline in record.outlines or ():
            if isinstance(outline, Mapping):  # polygons can be drawn
                draw(outline, height, width, record.path)
        if record.class_map:
            self.read_map(record.class_map, height, width)

    def read_map(self, path: Path, height: int, width: int) -> np.ndarray:
        """Read a class map as numbers of `pixel_classes`, uint8 (H, W)."""
        numbers = {identifier: int(self.numbers[k]) for identifier, k in self.annotations.class_ids.items()}
        if self.has_background:
            numbers = {0: 0} | {identifier: number + 1 for identifier, number in numbers.items() if number >= 0}
        return read_class_map(path, numbers, height, width, self.annotations.colours)

    def take(self, indices: np.ndarray) -> "Scenes":
        """The images at these indices, in this order."""
        part = copy(self)
        part.indices = self.indices[indices]
        return part

    def read_as(self, reading: Reading) -> "Scenes":
        """The same images, read in other bands, range or on another background."""
        part = copy(self)
        part.reading = reading
        return part

    def sources(self, indices: np.ndarray) -> list[Path | bytes]:
        """The files of these images."""
        return [self.path(int(index)) for index in indices]

    def take_classes(self, kept: Sequence[int]) -> "Scenes":
        """The images that show these classes, with only their objects; `kept[i]` becomes class i."""
        places = np.full(len(self.classes) + 1, -1, np.int64)  # the last one for classes that are dropped already
        places[list(kept)] = np.arange(len(kept))
        classes = [self.classes[number] for number in kept]
        part = Scenes(self.annotations, classes, self.flippable, self.indices, places[self.numbers], self.mapped)
        return part.take(np.flatnonzero([len(part.labels(index)) > 0 for index in range(len(part))]))


def draw(outline: Outline, height: int, width: int, path: Path) -> np.ndarray:
    """`rasterise` an outline of the image `path`; raises UserError where that fails."""
    try:
        return rasterise(outline, height, width)
    except ValueError as error:
        raise UserError(f"Cannot read {path}: its outlines cannot be drawn ({error}).") from error


def class_map(sample: Sample) -> np.ndarray:
    """The sample's class map, or one drawn from its outlines, large objects first: uint8 (H, W), 0 = background."""
    if sample.semantic is not None:
        return sample.semantic
    assert sample.masks is not None, "a data set for segmentation has outlines or class maps"
    drawn = np.zeros(sample.image.shape[:2], np.uint8)
    for k in np.argsort(-sample.masks.sum(axis=(1, 2))):
        drawn[sample.masks[k]] = IGNORE if sample.crowd[k] else sample.labels[k] + 1
    return drawn


def choose_scenes(
    parts: Mapping[str, Callable[[], Scenes]], classes: Callable[[], Sequence[str]], split: SplitRule, root: Path
) -> Scenes:
    """Return the images of a split, with the classes numbered as in training.

    A split without a part of its own is `val_fraction` or `test_fraction` of the images of "train", stratified by the
    classes that they show. Folds are made of "train" and "val" together.

    Args:
        parts: split -> function that reads it; "train" must be there.
        classes: reads those of "train", without its images where that is faster.
        root: the data set's folder; `group_pattern` is matched against the paths below it.

    Raises:
        UserError: a part with a class that "train" lacks, or what `SplitRule.choose` refuses.
    """
    own_val = "val" in parts and split.fold is None
    if split.name in parts and (split.name == "test" or (split.name == "val" and own_val)):
        return renumber_classes(parts[split.name](), classes())
    whole = parts["train"]()
    if "val" in parts:
        split = replace(split, val_fraction=0.0)
        if not own_val:
            whole = concatenate(whole, renumber_classes(parts["val"](), whole.classes))
    if "test" in parts:
        split = replace(split, test_fraction=0.0)
    if own_val and split.test_fraction == 0:
        return whole
    paths = [whole.path(index) for index in range(len(whole))]
    return whole.take(split.choose(whole.has_classes(), paths, test=True, root=root))


def renumber_classes(scenes: Scenes, classes: Sequence[str]) -> Scenes:
    """Number the classes by their names' places in `classes`."""
    if scenes.classes == tuple(classes):
        return scenes
    for name in scenes.classes:
        if name not in classes:
            raise UserError(f"The training annotations lack a class: {unknown('class', name, classes)}")
    places = np.array([list(classes).index(name) for name in scenes.classes], np.int64)
    numbers = np.where(scenes.numbers >= 0, places[scenes.numbers], -1)
    return Scenes(scenes.annotations, classes, scenes.flippable, scenes.indices, numbers)


def concatenate(first: Scenes, second: Scenes) -> Scenes:
    """Join two parts with the same classes: the images of `first`, then those of `second`.

    Raises:
        UserError: a pixel value means different classes in the class maps of the two.
    """
    assert first.classes == second.classes, (first.classes, second.classes)
    joined = Annotations()
    joined.colours = first.annotations.colours
    for scenes in (first, second):
        for identifier, number in scenes.annotations.class_ids.items():
            known = joined.class_ids.setdefault(identifier, int(scenes.numbers[number]))
            if known != scenes.numbers[number] and (first.has_class_maps or second.has_class_maps):
                names = first.classes[known], first.classes[scenes.numbers[number]]
                raise UserError(
                    f"The category id {identifier} is {names[0]!r} in the training annotations and {names[1]!r} in "
                    "those of val, so their class maps cannot be joined: give the categories the same ids, or train "
                    "without folds."
                )
        for index in range(len(scenes)):
            record = scenes.record(index)
            image = joined.add_image(record.path, record.image_id, record.size, record.class_map)
            outlines: Sequence[Outline | None] = record.outlines or [None] * len(record.labels)
            rows = zip(record.boxes, record.labels, record.crowd, outlines, record.areas, strict=True)
            for box, label, crowd, outline, area in rows:
                rings = (
                    outline
                    if outline is None or isinstance(outline, Mapping)
                    else [ring.ravel().tolist() for ring in outline]
                )
                joined.add_object(image, box, int(label), bool(crowd), rings, area=float(area))
    return Scenes(joined.finish(Path(first.path(0)).parent), first.classes, first.flippable and second.flippable)
