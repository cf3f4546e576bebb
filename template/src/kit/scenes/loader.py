"""Batches of annotated images: augmentation, in which boxes, outlines and class maps follow the image, and loading."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.augment import Pipeline
from src.kit.inference import size_of
from src.kit.inference_scenes import GREY, letterbox_place, place_pixels, scaled_size, visible_part
from src.kit.loading import Loader, choose_workers, image_options, normalize, refuse_keys
from src.kit.scenes.class_maps import IGNORE
from src.kit.scenes.samples import Sample, Scenes

ZOOM = (0.5, 1.5)

Augmentation = Callable[[Sample, np.random.Generator], Sample]
SceneBatch = tuple[Any, ...]


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
    return partial(augment_more, Pipeline(make_steps), basic)


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


def augment_more(pipeline: Pipeline, basic: Augmentation, sample: Sample, rng: np.random.Generator) -> Sample:
    """Apply the pipeline to what `basic` returns."""
    sample = basic(sample, rng)
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


class SceneLoader(Loader):
    """Iterating gives `(images, samples)`: normalised float32 (B, C, S, S) and B samples with the same images as uint8.

    With `arrays`, the batch is `(images, *arrays(samples))`: the task's arrays in place of the samples.

    Order, ranks, threads, limits and `set_epoch` are those of `Loader`.

    Args:
        image_size: height and width S of the images.
        augment: none, basic or advanced, as in `build_augmentation`.
        sizes: draw the size of each batch from these instead, the same on every rank.
        sharing: as `Loader.share_out` says, without a sampler.

    Raises:
        UserError: as `Loader`.
    """

    def __init__(
        self,
        scenes: Scenes,
        batch_size: int | Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int,
        augment: str = "none",
        sizes: Sequence[int] | None = None,
        num_workers: int | None = None,
        arrays: Callable[[list[Sample]], tuple[np.ndarray, ...]] | None = None,
        **sharing: Any,
    ) -> None:
        self.share_out(scenes, batch_size, **sharing)
        self.mean, self.std, self.sizes = tuple(mean), tuple(std), sizes
        self.augment, self.arrays = augment, arrays
        self.num_workers = choose_workers(in_memory=False) if num_workers is None else num_workers
        self.check_images(channels=scenes.channels)
        self.transforms = {
            size: build_augmentation(augment, size, scenes.flippable) for size in {image_size, *(sizes or ())}
        }
        self.image_size = image_size

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> SceneBatch:  # type: ignore[override]
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        transform = self.transforms[(self.size(epoch, number) or (self.image_size,))[0]]
        samples = [transform(self.split.read(int(index)), rng) for index in indices]
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        normalised = normalize(images, self.mean, self.std)
        return (normalised, *self.arrays(samples)) if self.arrays else (normalised, samples)


def build_scene_loader(
    cfg: DictConfig,
    scenes: Scenes,
    kind: str,
    rank: int = 0,
    world_size: int = 1,
    arrays: Callable[[list[Sample]], tuple[np.ndarray, ...]] | None = None,
) -> SceneLoader:
    """The loader that the configuration asks for; `kind` is train (shuffled, augmented), val or test."""
    refuse_keys(cfg.data, {"sampler": "none", "mixup_alpha": 0, "cutmix_alpha": 0}, "is for task=classification")
    options = image_options(cfg, scenes, kind, rank, world_size)
    return SceneLoader(scenes, image_size=cfg.data.image_size, arrays=arrays, **options)
