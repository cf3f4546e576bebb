"""Augmentation, in which boxes, outlines and class maps follow the image: of one image, or of several combined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from src.kit.augment import Pipeline
from src.kit.inference import Size, size_of
from src.kit.inference_scenes import GREY, letterbox_place, place_pixels, scaled_size, visible_part
from src.kit.scenes.class_maps import IGNORE
from src.kit.scenes.samples import Sample

ZOOM = (0.5, 1.5)
BLEND = 32.0  # alpha of the Beta distribution of MixUp's shares, which lie close to a half
PASTED = 0.5  # of the objects of an image, the share that copy-paste takes

# the last argument is the canvas: the height and width of the result
Augmentation = Callable[[Sample, np.random.Generator, Size], Sample]
Combination = Callable[[Callable[[], Sample], np.random.Generator, Size], Sample]


def build_augmentation(name: str, flippable: bool = True) -> Augmentation:
    """Return a function that maps a sample of any size, a random generator and a canvas to a sample of that size.

    "none" makes the image as long as the canvas, centred on grey, and draws no random numbers. "basic" scales it by 0.5
    to 1.5 times that, puts it or a crop of it anywhere (large-scale jitter, https://arxiv.org/abs/2012.07177), and
    mirrors half of the images of `flippable` data. "advanced" then rotates by up to 8 degrees, shears by up to 4,
    changes brightness, contrast and colour, and sometimes adds grey, blur, noise or JPEG artefacts.

    Boxes are clipped. Objects that are cut off entirely are dropped. After a random crop or rotation, an object with an
    outline gets the bounding box of what is left of it.
    """
    if name == "none":
        return letterbox
    basic = partial(jitter, flippable)
    if name == "basic":
        return basic
    assert name == "advanced", name
    pipeline = Pipeline(make_steps)
    return lambda sample, rng, canvas: augment_more(pipeline, basic(sample, rng, canvas), rng)


def letterbox(sample: Sample, rng: np.random.Generator, canvas: Size) -> Sample:
    """Put the image, as long as the canvas, into its middle; `rng` is not used."""
    placed = place_on_canvas(sample, canvas, *letterbox_place(*size_of(sample.image), canvas))
    return take_objects(placed, box_areas(placed.boxes) > 0)


def jitter(flippable: bool, sample: Sample, rng: np.random.Generator, canvas: Size) -> Sample:
    """Scale at random, put the image or a crop of it at a random place, and mirror half of the images."""
    extent = scaled_size(*size_of(sample.image), max(canvas), rng.uniform(*ZOOM))
    spare = [side - length for side, length in zip(canvas[::-1], extent, strict=True)]
    left, top = (int(rng.integers(min(0, rest), max(0, rest) + 1)) for rest in spare)
    placed = place_on_canvas(sample, canvas, extent, (left, top))
    return drop_invisible(mirror(placed) if flippable and rng.random() < 0.5 else placed)


def place_on_canvas(sample: Sample, canvas: Size, extent: tuple[int, int], corner: tuple[int, int]) -> Sample:
    """Resize to `extent` = (width, height) and put the upper left corner at `corner` = (x, y) of a grey canvas."""
    height, width = sample.image.shape[:2]
    left, top, right, bottom = visible_part(canvas, extent, corner)
    scale, offset = np.tile(np.array(extent) / (width, height), 2), np.tile(corner, 2)
    image = place_pixels(sample.image, canvas, extent, corner)
    columns = ((np.arange(left, right) + 0.5 - offset[0]) / scale[0]).astype(int)  # the source pixel under each centre
    rows = ((np.arange(top, bottom) + 0.5 - offset[1]) / scale[1]).astype(int)
    masks = semantic = None
    if sample.masks is not None:
        masks = np.zeros((len(sample.masks), *canvas), bool)
        masks[:, top:bottom, left:right] = sample.masks.take(rows, axis=1).take(columns, axis=2)
    if sample.semantic is not None:
        semantic = np.full(canvas, IGNORE, np.uint8)
        semantic[top:bottom, left:right] = sample.semantic[rows][:, columns]
    boxes = (sample.boxes * scale + offset).clip(0, canvas[::-1] * 2).astype(np.float32)
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


def build_combination(mix: Mix, name: str, flippable: bool = True) -> Combination:
    """`build_augmentation` of samples that are combined first, of what a function reads: an image, then others."""
    basic = build_augmentation("none" if name == "none" else "basic", flippable)
    together = partial(combine, mix, flippable and name != "none", basic)
    if name != "advanced":
        return together
    pipeline = Pipeline(make_steps)
    return lambda read, rng, canvas: augment_more(pipeline, together(read, rng, canvas), rng)


def combine(
    mix: Mix,
    flippable: bool,
    basic: Augmentation,
    read: Callable[[], Sample],
    rng: np.random.Generator,
    canvas: Size,
) -> Sample:
    """Fill a canvas: an image or a mosaic, with pasted objects, blended with an image or a mosaic."""

    def base() -> Sample:
        if rng.random() < mix.mosaic:
            return mosaic(flippable, [read() for _ in range(4)], rng, canvas)
        return basic(read(), rng, canvas)

    sample = base()
    if rng.random() < mix.copy_paste:
        sample = paste_objects(sample, basic(read(), rng, canvas), rng)
    if rng.random() < mix.mixup:
        sample = blend(sample, base(), rng.beta(BLEND, BLEND))
    return sample


def mosaic(flippable: bool, samples: Sequence[Sample], rng: np.random.Generator, canvas: Size) -> Sample:
    """Four images around a point in the middle half of the canvas, each scaled to 0.5 to 1.5 times its length.

    Each quarter shows the corner of its image that touches the point (Bochkovskiy et al. 2020, arXiv 2004.10934, in
    YOLOv5's form); what an image does not cover is grey. Half of the images of `flippable` data are mirrored.
    """
    zoom, (height, width) = rng.uniform(*ZOOM), canvas
    x, y = (int(rng.integers(side // 4, side - side // 4 + 1)) for side in (width, height))
    parts = []
    for number, sample in enumerate(samples):
        turned = mirror(sample) if flippable and rng.random() < 0.5 else sample
        right, below = number % 2, number // 2
        extent = scaled_size(*size_of(turned.image), max(canvas), zoom)
        corner = x if right else x - extent[0], y if below else y - extent[1]
        area = (x if right else 0, y if below else 0, width if right else x, height if below else y)
        parts.append((place_on_canvas(turned, canvas, extent, corner), area))
    image = np.full_like(parts[0][0].image, GREY)
    semantic = None if samples[0].semantic is None else np.full(canvas, IGNORE, np.uint8)
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
    """MixUp of images with objects: `share` of the first's pixels, the rest of the other's, and the objects of both.

    Zhang et al. 2019, arXiv 1902.04103, without weights of the losses, as in YOLOX.
    """
    pixels = share * sample.image + (1 - share) * other.image
    return replace(join([sample, other]), image=np.rint(pixels).astype(np.uint8))
