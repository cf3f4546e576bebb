"""A batch's targets for each task: made up, the same for every image, and as many objects as `Shape` says."""

import math

import numpy as np

from src.kit.memory.shape import Shape

BOX = 0.8  # of its place in the grid: objects lie side by side


def make_targets(task: str, shape: Shape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays that `task` gives to a loss beside the outputs, with `batch` rows."""
    size = shape.image_size
    if task == "tabular_regression":
        return (np.zeros((batch, 3), np.float32),)
    if task == "segmentation":  # every class occurs and every pixel counts
        return (np.broadcast_to(np.arange(size) % shape.classes, (batch, size, size)).astype(np.uint8),)
    if not shape.objects:
        return (np.zeros(batch, np.int64),)
    from src.kit.scenes import OBJECT  # which projects without such tasks lack

    boxes = place(shape.objects, size)
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    labels = np.arange(len(boxes)) % shape.classes
    arrays = (labels, boxes, np.full(len(boxes), OBJECT, np.uint8), masks)
    return tuple(np.stack([array] * batch) for array in (arrays if task == "instance_segmentation" else arrays[:3]))


def place(count: int, size: int) -> np.ndarray:
    """Boxes float32 (count, 4) of one size on a grid that fills the image."""
    side = math.ceil(math.sqrt(count))
    row, column = np.divmod(np.arange(count), side)
    centre = (np.stack([column, row], axis=1) + 0.5) * size / side
    half = BOX * size / side / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
