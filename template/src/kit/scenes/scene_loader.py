"""Batches of annotated images, ready for any framework."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from src.kit.loading import Loader, choose_workers, normalize
from src.kit.scenes.augment import build
from src.kit.scenes.samples import Sample, Scenes

SceneBatch = tuple[Any, ...]


class SceneLoader(Loader):
    """Iterating gives `(images, samples)`: normalised float32 (B, 3, S, S) and B samples with the same images as uint8.

    With `arrays`, what a task makes of the samples stands in their place: `(images, *arrays(samples))`.

    Order, ranks, threads, limits and `set_epoch` are those of `Loader`.

    Args:
        image_size: height and width S that the augmentation fits every image into.
        augment: one of `AUGMENTATIONS`, as `src/kit/scenes/augment.py` describes them.
        sizes: each batch has one of these sizes instead, drawn at random, the same on every rank.
        sharing: as `Loader.share_out` says, without a sampler.

    Raises:
        UserError: as `Loader`.
    """

    def __init__(
        self,
        scenes: Scenes,
        batch_size: int,
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
        self.check_images(channels=3)
        self.transforms = {size: build(augment, size, scenes.flippable) for size in {image_size, *(sizes or ())}}
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
