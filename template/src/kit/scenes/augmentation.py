"""Augmentation, in which boxes, outlines and class maps follow the image: of one image, or of several combined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from src.kit.augment import Pipeline
from src.kit.inference import size_of
from src.kit.inference_scenes import GREY, letterbox_place, place_pixels, scaled_size, visible_part
from src.kit.scenes.class_maps import IGNORE
from src.kit.scenes.samples import Sample

ZOOM = (0.5, 1.5)
BLEND = 32.0  # alpha of the Beta distribution of MixUp's shares, which lie close to a half
PASTED = 0.5  # of the objects of an image, the share that copy-paste takes

Augmentation = Callable[[Sample, np.random.Generator], Sample]
Combination = Callable[[Callable[[], Sample], np.random.Generator], Sample]


def build_augmentation(name: str, image_size: int, flippable: bool = True) -> Augmentation:
    """Return a function that maps a sample of any size and a random generator to one of image_size x image_size.

    "none" fits the image into the square, centred on grey, and draws no random numbers. "basic" scales it by 0.5 to 1.5
    times that, puts it or a crop of it anywhere in the square (large-scale jitter, https://arxiv.org/abs/2012.07177),
    and mirrors half of the images of `flippable` data. "advanced" then rotates by up to 8 degrees, shears by up to 4,
    changes brightness, contrast and colour, and sometimes adds grey, blur, noise or JPEG artefacts.

    Boxes are clipped. Objects that are cut off entirely are dropped. After a random crop or rotation, an object with an
    outline gets the bounding box of what is left of it.
    """
    if name == "none":
        return partial(letterbox, image_size)
    basic = partial(jitter, image_size, flippable)
    if name == "basic":
        return basic
    assert name == "advanced", name
    pipeline = Pipeline(make_steps)
    return lambda sample, rng: augment_more(pipeline, basic(sample, rng), rng)


def letterbox(size: int, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
    """Fit the image into the middle of a square of `size` pixels; `rng` is not used."""
    height, width = sample.image.shape[:2]
    placed = place_in_square(sample, size, *letterbox_place(height, width, size))
    return take_objects(placed, box_areas(placed.boxes) > 0)


def jitter(size: int, flippable: bool, sample: Sample, rng: np.random.Generator) -> Sample:
    """Scale at random, put the image or a crop of it at a random place, and mirror half of the images."""
    extent = scaled_size(*size_of(sample.image), size, rng.uniform(*ZOOM))
    left, top = (int(rng.integers(min(0, size - length), max(0, size - length) + 1)) for length in extent)
    placed = place_in_square(sample, size, extent, (left, top))
    return drop_invisible(mirror(placed) if flippable and rng.random() < 0.5 else placed)


def place_in_square(sample: Sample, size: int, extent: tuple[int, int], corner: tuple[int, int]) -> Sample:
    """Resize to `extent` = (width, height) and put the upper left corner at `corner` = (x, y) of a grey square."""
    height, width = sample.image.shape[:2]
    left, top, right, bottom = visible_part(size, extent, corner)
    scale, offset = np.tile(np.array(extent) / (width, height), 2), np.tile(corner, 2)
    image = place_pixels(sample.image, size, extent, corner)
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


def drop_invisible(sample: Sample) -> Sample:
    """Drop objects smaller than a pixel; objects with outlines get their outlines' bounding boxes."""
    if sample.masks is not None:
        sample = replace(sample, boxes=outline_boxes(sample.masks))
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    return take_objects(sample, (sides >= 1).all(axis=1))


def outline_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes float32 (M, 4) of masks bool (M, H, W); all zeros for an empty mask."""
    bounds = []
    for axis in (1, 2):  # over the rows for x, over the columns for y
        used = np.asarray(masks.any(axis=axis))
        bounds += [used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)]
    boxes = np.stack([bounds[number] for number in (0, 2, 1, 3)], axis=1).astype(np.float32)
    boxes[~masks.any(axis=(1, 2))] = 0
    return boxes


def take_objects(sample: Sample, kept: np.ndarray) -> Sample:
    """Keep the objects that `kept`, bool or integer (M,), selects; the image and its class map stay."""
    masks = None if sample.masks is None else sample.masks[kept]
    return replace(sample, boxes=sample.boxes[kept], labels=sample.labels[kept], crowd=sample.crowd[kept], masks=masks)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (M,) of boxes (M, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def augment_more(pipeline: Pipeline, sample: Sample, rng: np.random.Generator) -> Sample:
    """Apply the pipeline to a sample of the final size."""
    data: dict[str, Any] = {"image": sample.image, "bboxes": sample.boxes, "index": np.arange(len(sample.boxes))}
    if sample.semantic is not None:
        data["mask"] = sample.semantic
    if sample.masks is not None and len(sample.masks):
        data["masks"] = (sample.masks.view(np.uint8) != 0).view(np.uint8)  # Pillow's True is a byte of 255
    result = pipeline(rng, **data)
    kept = np.asarray(result["index"], np.int64).ravel()
    boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
    if "masks" in data:  # outside, they are filled as the class map is
        sample = replace(sample, masks=result["masks"] == 1)
    moved = replace(take_objects(sample, kept), image=result["image"], boxes=boxes, semantic=result.get("mask"))
    return drop_invisible(moved)


def make_steps(a: Any) -> Any:
    """Rotation, shear, colours and artefacts, from Albumentations' module `a`."""
    worse = [a.GaussianBlur((3, 5)), a.GaussNoise((0.02, 0.06)), a.ImageCompression(quality_range=(50, 95))]
    return a.Compose(
        [
            a.Affine(rotate=(-8, 8), shear=(-4, 4), fill=GREY, fill_mask=IGNORE, p=0.5),
            a.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.5, 1.5), (-0.02, 0.02), p=0.8),
            a.OneOf([a.ToGray(p=0.2), *worse], p=0.2),
        ],
        # an index stands for labels, crowd flags and outlines
        bbox_params=a.BboxParams("pascal_voc", label_fields=["index"]),
    )


@dataclass(frozen=True)
class Mix:
    """How many of the training images are combined with others: probabilities in 0..1."""

    mosaic: float = 0.0
    copy_paste: float = 0.0
    mixup: float = 0.0

    def __bool__(self) -> bool:
        return any((self.mosaic, self.copy_paste, self.mixup))


def build_combination(mix: Mix, name: str, size: int, flippable: bool = True) -> Combination:
    """`build_augmentation` of samples that are combined first, of what a function reads: an image, then others."""
    basic = build_augmentation("none" if name == "none" else "basic", size, flippable)
    together = partial(combine, mix, size, flippable and name != "none", basic)
    if name != "advanced":
        return together
    pipeline = Pipeline(make_steps)
    return lambda read, rng: augment_more(pipeline, together(read, rng), rng)


def combine(
    mix: Mix, size: int, flippable: bool, basic: Augmentation, read: Callable[[], Sample], rng: np.random.Generator
) -> Sample:
    """Make a sample of size x size: an image or a mosaic, with pasted objects, blended with an image or a mosaic."""

    def base() -> Sample:
        if rng.random() < mix.mosaic:
            return mosaic(size, flippable, [read() for _ in range(4)], rng)
        return basic(read(), rng)

    sample = base()
    if rng.random() < mix.copy_paste:
        sample = paste_objects(sample, basic(read(), rng), rng)
    if rng.random() < mix.mixup:
        sample = blend(sample, base(), rng.beta(BLEND, BLEND))
    return sample


def mosaic(size: int, flippable: bool, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
    """Four images around a point in the middle half of the square, each scaled to 0.5 to 1.5 times the square.

    Each quarter shows the corner of its image that touches the point (Bochkovskiy et al. 2020, arXiv 2004.10934, in
    YOLOv5's form); what an image does not cover is grey. Half of the images of `flippable` data are mirrored.
    """
    zoom, (x, y) = rng.uniform(*ZOOM), rng.integers(size // 4, size - size // 4 + 1, 2)
    parts = []
    for number, sample in enumerate(samples):
        turned = mirror(sample) if flippable and rng.random() < 0.5 else sample
        right, below = number % 2, number // 2
        extent = scaled_size(*size_of(turned.image), size, zoom)
        corner = int(x) if right else int(x) - extent[0], int(y) if below else int(y) - extent[1]
        area = (x if right else 0, y if below else 0, size if right else x, size if below else y)
        parts.append((place_in_square(turned, size, extent, corner), area))
    image = np.full_like(parts[0][0].image, GREY)
    semantic = None if samples[0].semantic is None else np.full((size, size), IGNORE, np.uint8)
    cut = []
    for part, (left, top, right, bottom) in parts:
        inside = np.s_[top:bottom, left:right]
        image[inside] = part.image[inside]
        if semantic is not None and part.semantic is not None:
            semantic[inside] = part.semantic[inside]
        boxes = part.boxes.clip((left, top) * 2, (right, bottom) * 2).astype(np.float32)
        masks = None
        if part.masks is not None:
            masks = np.zeros_like(part.masks)
            masks[:, top:bottom, left:right] = part.masks[:, top:bottom, left:right]
        cut.append(drop_invisible(replace(part, boxes=boxes, masks=masks)))
    return replace(join(cut), image=image, semantic=semantic, image_id=samples[0].image_id)


def join(samples: Sequence[Sample]) -> Sample:
    """The first sample with the objects of all of them."""
    columns = {
        name: np.concatenate([getattr(sample, name) for sample in samples])
        for name in ("boxes", "labels", "crowd", "masks")
        if name != "masks" or samples[0].masks is not None
    }
    return replace(samples[0], **columns)


def paste_objects(sample: Sample, source: Sample, rng: np.random.Generator) -> Sample:
    """Copy about half of the objects of `source`, by their outlines, over the sample (Ghiasi et al. 2021, 2012.07177).

    What they hide is cut out of the sample's outlines, and boxes shrink to what is left. Crowds are not copied.
    """
    assert sample.masks is not None and source.masks is not None, "copy-paste is for data with outlines"
    taken = np.asarray(rng.random(len(source.labels)) < PASTED) & ~source.crowd
    chosen = take_objects(source, taken)
    assert chosen.masks is not None
    covered = np.asarray(chosen.masks.any(axis=0))
    image = np.where(covered[..., None], source.image, sample.image)
    hidden = np.asarray((sample.masks & covered).any(axis=(1, 2)))
    left = replace(sample, image=image, masks=sample.masks & ~covered)
    return join([take_objects(left, ~hidden), drop_invisible(take_objects(left, hidden)), chosen])


def blend(sample: Sample, other: Sample, share: float) -> Sample:
    """MixUp of images with objects: the pixels are `share` of the first and the rest of the other, the objects are
    those of both (Zhang et al. 2019, arXiv 1902.04103, without weights of the losses, as in YOLOX)."""
    pixels = share * sample.image + (1 - share) * other.image
    return replace(join([sample, other]), image=np.rint(pixels).astype(np.uint8))
