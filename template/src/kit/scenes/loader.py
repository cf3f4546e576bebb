"""Batches of annotated images, and which of them are augmented how."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.inference import Size
from src.kit.inference_scenes import rectangle
from src.kit.loading import Loader, choose_workers, image_options, largest_batch, normalize, refuse_keys
from src.kit.scenes.augmentation import Mix, build_augmentation, build_combination
from src.kit.scenes.samples import Sample, Scenes

SceneBatch = tuple[Any, ...]


class SceneLoader(Loader):
    """Iterating gives `(images, samples)`: normalised float32 (B, C, H, W) and B samples with the same images as uint8.

    With `arrays`, the batch is `(images, *arrays(samples))`: the task's arrays in place of the samples.

    Order, ranks, threads, limits and `set_epoch` are those of `Loader`.

    Args:
        image_size: height and width of the images.
        augment: none, basic or advanced, as in `build_augmentation`.
        sizes: draw the size of each batch from these instead, the same on every rank.
        mix: combine images, in the first `mixed_epochs` epochs.
        rectangular: give each batch the `rectangle` that holds its images instead, and put images of like shapes into
            it: in training by batches in random order, and otherwise as `Scenes.by_shape` does.
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
        mix: Mix | None = None,
        mixed_epochs: int = 0,
        rectangular: bool = False,
        **sharing: Any,
    ) -> None:
        self.rectangular, self.image_size = rectangular, image_size
        self.share_out(
            scenes.by_shape() if rectangular and not sharing.get("shuffle") else scenes, batch_size, **sharing
        )
        self.mean, self.std, self.sizes = tuple(mean), tuple(std), sizes
        self.augment, self.arrays = augment, arrays
        self.num_workers = choose_workers(in_memory=False) if num_workers is None else num_workers
        self.check_images(channels=scenes.channels)
        self.augmented = build_augmentation(augment, scenes.flippable)
        self.mixed = build_combination(mix, augment, scenes.flippable) if mix and mixed_epochs else None
        self.mixed_epochs = mixed_epochs
        shapes = [rectangle([own], image_size) for own in scenes.sizes()] if rectangular and self.shuffle else []
        self.wideness = np.array([width - height for height, width in shapes], np.int64)  # of training images

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> SceneBatch:  # type: ignore[override]
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        canvas = self.size(epoch, number) or (self.image_size, self.image_size)
        if self.rectangular:
            canvas = rectangle(self.split.sizes(indices), canvas[0])
        if self.mixed and epoch < self.mixed_epochs:
            samples = [self.mixed(self.reader(int(index), rng), rng, canvas) for index in indices]
        else:
            samples = [self.augmented(self.split.read(int(index)), rng, canvas) for index in indices]
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        normalised = normalize(images, self.mean, self.std)
        return (normalised, *self.arrays(samples)) if self.arrays else (normalised, samples)

    def arrange(self, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An epoch's samples: those of each step alike in shape, steps in random order, a last smaller one as drawn.

        A step is a batch of each process that began the epoch; others may go on with what is left of it.
        """
        if not self.rectangular:
            return drawn
        ranks, size = self.parts[0][:2] if self.parts else self.division()
        whole = len(drawn) // (ranks * size) * ranks * size
        # images that need the same rectangle keep their random order, and so meet others in each epoch
        alike = drawn[:whole][np.argsort(self.wideness[drawn[:whole]], kind="stable")]
        return np.concatenate([rng.permutation(alike.reshape(-1, ranks * size)).ravel(), drawn[whole:]])

    def reader(self, index: int, rng: np.random.Generator) -> Callable[[], Sample]:
        """Read this image when called first, then others at random."""
        numbers = chain([index], iter(lambda: int(rng.integers(len(self.split))), None))
        return lambda: self.split.read(next(numbers))


def build_scene_loader(
    cfg: DictConfig,
    scenes: Scenes,
    kind: str,
    rank: int = 0,
    world_size: int = 1,
    arrays: Callable[[list[Sample]], tuple[np.ndarray, ...]] | None = None,
) -> SceneLoader:
    """The loader that the configuration asks for; `kind` is train (shuffled, augmented), val or test."""
    off = {"sampler": "none", "mixup_alpha": 0, "cutmix_alpha": 0, "shift": None, "border": "black"}
    refuse_keys(cfg.data, off, "is for task=classification")
    options = image_options(cfg, scenes, kind, rank, world_size)
    mix = choose_mix(cfg, scenes)
    if kind == "train" and mix:
        epochs = cfg.trainer.max_epochs
        options |= {"mix": mix, "mixed_epochs": epochs - int(cfg.data.plain_epochs * epochs)}
    options["rectangular"] = is_rectangular(cfg, kind)
    return SceneLoader(scenes, image_size=cfg.data.image_size, arrays=arrays, **options)


def is_rectangular(cfg: DictConfig, kind: str = "val") -> bool:
    """Whether `data.rectangular` is for batches of this kind."""
    chosen = cfg.data.get("rectangular", "none")  # which runs of earlier versions lack
    return bool(chosen == "all" or (chosen == "evaluation" and kind != "train"))


def evaluated_canvas(cfg: DictConfig, scenes: Scenes, index: int) -> Size:
    """Height and width of the batch that shows an image when `scenes`, in the order of evaluation, are evaluated."""
    size, batch = cfg.data.image_size, largest_batch(cfg)
    if not is_rectangular(cfg):
        return size, size
    first = index // batch * batch
    return rectangle(scenes.sizes(slice(first, first + batch)), size)


def choose_mix(cfg: DictConfig, scenes: Scenes) -> Mix:
    """How training images are combined.

    Raises:
        UserError: the data have no objects or no outlines to combine.
    """
    mix = Mix(*(float(cfg.data.get(key, 0)) for key in ("mosaic", "copy_paste", "mixup")))
    if scenes.mapped:
        refuse_keys(cfg.data, {key: 0 for key in ("copy_paste", "mixup") if key in cfg.data}, "is for objects")
    if mix.copy_paste and not scenes.has_outlines:
        raise UserError(
            f"data.copy_paste={cfg.data.copy_paste} needs an outline for every object, and data={cfg.data.name} has "
            "only boxes for some or all: set it to 0."
        )
    return mix
