"""Batches of annotated images, and which of them are augmented how."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading import Loader, choose_workers, image_options, normalize, refuse_keys
from src.kit.scenes.augmentation import Mix, build_augmentation, build_combination
from src.kit.scenes.samples import Sample, Scenes

SceneBatch = tuple[Any, ...]


class SceneLoader(Loader):
    """Iterating gives `(images, samples)`: normalised float32 (B, C, S, S) and B samples with the same images as uint8.

    With `arrays`, the batch is `(images, *arrays(samples))`: the task's arrays in place of the samples.

    Order, ranks, threads, limits and `set_epoch` are those of `Loader`.

    Args:
        image_size: height and width S of the images.
        augment: none, basic or advanced, as in `build_augmentation`.
        sizes: draw the size of each batch from these instead, the same on every rank.
        mix: combine images, in the first `mixed_epochs` epochs.
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
        **sharing: Any,
    ) -> None:
        self.share_out(scenes, batch_size, **sharing)
        self.mean, self.std, self.sizes = tuple(mean), tuple(std), sizes
        self.augment, self.arrays = augment, arrays
        self.num_workers = choose_workers(in_memory=False) if num_workers is None else num_workers
        self.check_images(channels=scenes.channels)
        every = {image_size, *(sizes or ())}
        self.transforms = {size: build_augmentation(augment, size, scenes.flippable) for size in every}
        mixes = every if mix and mixed_epochs else ()
        self.mixed = {size: build_combination(mix or Mix(), augment, size, scenes.flippable) for size in mixes}
        self.image_size, self.mixed_epochs = image_size, mixed_epochs

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> SceneBatch:  # type: ignore[override]
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        size = (self.size(epoch, number) or (self.image_size,))[0]
        if self.mixed and epoch < self.mixed_epochs:
            samples = [self.mixed[size](self.reader(int(index), rng), rng) for index in indices]
        else:
            samples = [self.transforms[size](self.split.read(int(index)), rng) for index in indices]
        images = np.stack([sample.image for sample in samples]).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        normalised = normalize(images, self.mean, self.std)
        return (normalised, *self.arrays(samples)) if self.arrays else (normalised, samples)

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
    return SceneLoader(scenes, image_size=cfg.data.image_size, arrays=arrays, **options)


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
