"""Made-up objects, for estimates and benchmarks."""

import math
from typing import Any

import numpy as np

from src.kit.scenes.objects import OBJECT

BOX = 0.8  # of its cell in the grid: objects lie side by side


def example_objects(shape: Any, batch: int) -> tuple[np.ndarray, ...]:
    """Labels (B, M), boxes (B, M, 4), kinds (B, M) and masks (B, M, H, W) of `shape.objects` objects in each image."""
    size = shape.image_size
    boxes = grid_boxes(shape.objects, size)
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    labels = np.arange(len(boxes)) % shape.classes
    arrays = (labels, boxes, np.full(len(boxes), OBJECT, np.uint8), masks)
    return tuple(np.stack([array] * batch) for array in arrays)


def grid_boxes(count: int, size: int) -> np.ndarray:
    """Boxes float32 (count, 4) of one size on a grid that fills the image."""
    side = math.ceil(math.sqrt(count))
    row, column = np.divmod(np.arange(count), side)
    centre = (np.stack([column, row], axis=1) + 0.5) * size / side
    half = BOX * size / side / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
