"""Made-up targets of a batch, for memory estimates: the same for every image, with a fixed number of objects.

`shape` has `classes`, `image_size` (pixels a side) and `objects` (of an image), as `src.kit.memory.DataShape` has.
"""

import math
from typing import Protocol

import numpy as np
from omegaconf import DictConfig

from src.kit.scenes.scores import OBJECT

# Of an image. Batches are padded to their fullest image, and among 16 photos of COCO that has 22 in the median and 40
# in one batch of ten.
OBJECTS = 32
FEWER_OBJECTS = {"digit_scenes": 6}
BOX_SHARE = 0.8  # a box's part of its cell's side, so that boxes never touch


class SceneShape(Protocol):
    """What the targets depend on."""

    @property
    def classes(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def objects(self) -> int: ...


def example_objects(cfg: DictConfig) -> int:
    """How many objects an image of `cfg.data` is assumed to have."""
    return FEWER_OBJECTS.get(cfg.data.name, OBJECTS)


def example_targets_boxes(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """Labels int64 (N, M), boxes float32 (N, M, 4) as x1, y1, x2, y2 in pixels, and kinds uint8 (N, M)."""
    boxes = grid_boxes(shape.objects, shape.image_size)
    labels = np.arange(len(boxes)) % shape.classes
    return repeat_rows((labels, boxes, np.full(len(boxes), OBJECT, np.uint8)), batch)


def example_targets_masks(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays of `example_targets_boxes`, and masks uint8 (N, M, H, W) that fill the boxes."""
    boxes, size = grid_boxes(shape.objects, shape.image_size), shape.image_size
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    return (*example_targets_boxes(shape, batch), *repeat_rows((masks,), batch))


def example_targets_class_map(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """Class maps uint8 (N, H, W) in which every class occurs and every pixel counts."""
    size = shape.image_size
    return (np.broadcast_to(np.arange(size) % shape.classes, (batch, size, size)).astype(np.uint8),)


def grid_boxes(count: int, size: int) -> np.ndarray:
    """Boxes float32 (count, 4) of equal size on a grid that fills an image of `size` pixels a side."""
    side = math.ceil(math.sqrt(count))
    row, column = np.divmod(np.arange(count), side)
    centre = (np.stack([column, row], axis=1) + 0.5) * size / side
    half = BOX_SHARE * size / side / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def repeat_rows(arrays: tuple[np.ndarray, ...], batch: int) -> tuple[np.ndarray, ...]:
    """Each array `batch` times along a new first axis."""
    return tuple(np.stack([array] * batch) for array in arrays)
