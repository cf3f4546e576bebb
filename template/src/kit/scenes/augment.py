"""Augmentation of annotated images: boxes, outlines and class maps go where the image goes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from src.kit.scenes.samples import IGNORE, Sample

GREY = 114  # outside the image: close to the mean of photos
ZOOM = (0.5, 1.5)

Augmentation = Callable[[Sample, np.random.Generator], Sample]


def build(name: str, image_size: int, flippable: bool = True) -> Augmentation:
    """Return what turns a sample of any size into one of `image_size` x `image_size`, given a random generator.

    "none" fits the image into the square, centred on grey, and draws no random numbers. "basic" scales it by 0.5 to 1.5
    times that, puts it or a crop of it anywhere in the square (large-scale jitter, https://arxiv.org/abs/2012.07177),
    and mirrors it half of the time where the data is `flippable`. "advanced" also rotates, shears and recolours.

    Boxes are clipped, and objects of which nothing is left are dropped with their labels, crowd flags and outlines.
    After a random crop or rotation the box of an object with an outline is that of what is left of the outline.
    """
    if name == "none":
        return partial(letterbox, image_size)
    basic = partial(jitter, image_size, flippable)
    if name == "basic":
        return basic
    assert name == "advanced", name
    from src.kit.scenes.augment_advanced import build as build_advanced

    return build_advanced(basic)


def letterbox(size: int, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
    """Fit the image into the middle of a square of `size` pixels; `rng` is not used."""
    width, height = scaled(sample, size, 1.0)
    placed = place(sample, size, (width, height), ((size - width) // 2, (size - height) // 2))
    return take(placed, area(placed.boxes) > 0)


def jitter(size: int, flippable: bool, sample: Sample, rng: np.random.Generator) -> Sample:
    """Scale at random, put the image or a crop of it at a random place, and mirror half of them."""
    extent = scaled(sample, size, rng.uniform(*ZOOM))
    left, top = (int(rng.integers(min(0, size - length), max(0, size - length) + 1)) for length in extent)
    placed = place(sample, size, extent, (left, top))
    return visible(mirror(placed) if flippable and rng.random() < 0.5 else placed)


def scaled(sample: Sample, size: int, zoom: float) -> tuple[int, int]:
    """Width and height of the image whose longer side becomes `zoom` times `size`."""
    height, width = sample.image.shape[:2]
    ratio = zoom * size / max(height, width)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def place(sample: Sample, size: int, extent: tuple[int, int], corner: tuple[int, int]) -> Sample:
    """Resize to `extent` = (width, height) and put the upper left corner at `corner` = (x, y) of a grey square."""
    height, width = sample.image.shape[:2]
    left, top = (max(0, start) for start in corner)
    right, bottom = (min(size, start + length) for start, length in zip(corner, extent, strict=True))
    scale, offset = np.tile(np.array(extent) / (width, height), 2), np.tile(corner, 2)
    seen = (([left, top, right, bottom] - offset) / scale).clip(0, [width, height] * 2)  # in the source's pixels
    image = np.full((size, size, 3), GREY, np.uint8)
    part = Image.fromarray(sample.image).resize((right - left, bottom - top), Image.Resampling.BILINEAR, tuple(seen))
    image[top:bottom, left:right] = np.asarray(part)
    columns = ((np.arange(left, right) + 0.5 - offset[0]) / scale[0]).astype(int)  # the source pixel under each centre
    rows = ((np.arange(top, bottom) + 0.5 - offset[1]) / scale[1]).astype(int)
    masks = semantic = None
    if sample.masks is not None:
        masks = np.zeros((len(sample.masks), size, size), bool)
        masks[:, top:bottom, left:right] = sample.masks.take(rows, axis=1).take(columns, axis=2)
    if sample.semantic is not None:
        semantic = np.full((size, size), IGNORE, np.uint8)
        semantic[top:bottom, left:right] = sample.semantic[rows][:, columns]
    boxes = (sample.boxes * scale + offset).clip(0, size).astype(np.float32)
    return replace(sample, image=image, boxes=boxes, masks=masks, semantic=semantic)


def mirror(sample: Sample) -> Sample:
    """Swap left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        boxes=boxes,
        masks=None if sample.masks is None else np.ascontiguousarray(sample.masks[:, :, ::-1]),
        semantic=None if sample.semantic is None else np.ascontiguousarray(sample.semantic[:, ::-1]),
    )


def visible(sample: Sample) -> Sample:
    """Keep the objects of which a pixel is left; the boxes of those with outlines become their outlines'."""
    if sample.masks is not None:
        sample = replace(sample, boxes=outline_boxes(sample.masks))
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return take(sample, (sides >= 1).all(axis=1))


def outline_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes float32 (M, 4) of masks bool (M, H, W); all zeros for an empty mask."""
    bounds = []
    for axis in (1, 2):  # over the rows for x, over the columns for y
        used = np.asarray(masks.any(axis=axis))
        bounds += [used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)]
    boxes = np.stack([bounds[number] for number in (0, 2, 1, 3)], axis=1).astype(np.float32)
    boxes[~masks.any(axis=(1, 2))] = 0
    return boxes


def take(sample: Sample, kept: np.ndarray) -> Sample:
    """The objects at these places, bool or integer (M,); the image and its class map stay."""
    masks = None if sample.masks is None else sample.masks[kept]
    return replace(sample, boxes=sample.boxes[kept], labels=sample.labels[kept], crowd=sample.crowd[kept], masks=masks)


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas (M,) of boxes (M, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
