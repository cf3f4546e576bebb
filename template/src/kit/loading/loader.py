"""Batches of a split as NumPy arrays, ready for any framework."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from src.kit.augment import AUGMENTATIONS, build, mix
from src.kit.config import UserError, unknown
from src.kit.loading.base import Split
from src.kit.loading.order import count_batches, count_samples, order, own_order, refuse_large_batch
from src.kit.loading.prefetch import choose_workers, prepare_ahead
from src.kit.loading.transforms import normalize, resize

Batch = tuple[np.ndarray, np.ndarray]


class Loader:
    """Iterating gives new arrays `(images, targets)`: normalised float32 (B, C, H, W) and int64 (B,).

    The order and the augmentation depend on `seed`, the epoch and `rank` only, not on the number of workers. With
    `shuffle` every rank gets equally many samples, by repeating a few; without it each sample goes to one rank only.
    With MixUp or CutMix the targets are float32 (B, K): the probability of each class.

    Args:
        mean, std: one value for each channel, for pixels of 0 to 1.
        augment: one of `AUGMENTATIONS`.
        mixup_alpha, cutmix_alpha: as `src/kit/augment/mix.py` says; 0 is off.
        sizes: each batch is resized to one of these heights and widths, drawn at random, the same on every rank.
        num_workers: threads that prepare batches ahead; 0 prepares each one when it is asked for; None chooses by the
            machine, and for images in memory 0, or 1 for augment="advanced".
        sharing: as `share_out` says.

    Raises:
        UserError: a batch larger than the training data, another number of channels than `mean` and `std` have, an
            unknown augmentation or one for other images, sizes that are none, a sampler for images in an order of their
            own, a limit out of its range.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: str = "none",
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        sizes: Sequence[int] | None = None,
        num_workers: int | None = None,
        **sharing: Any,
    ) -> None:
        self.share_out(split, batch_size, **sharing)
        self.mean, self.std, self.augment = tuple(mean), tuple(std), augment
        self.alphas, self.sizes = (mixup_alpha, cutmix_alpha), sizes
        # Albumentations works image by image: also of images in memory, batches are made while others are trained on
        automatic = max(choose_workers(split.images.in_memory), int(augment == "advanced"))
        self.num_workers = automatic if num_workers is None else num_workers
        self.check_images(channels=split.images.shape[2])
        self.transform = build(augment, split.flippable)

    def share_out(
        self,
        split: Any,
        batch_size: int,
        sampler: str = "none",
        shuffle: bool = False,
        seed: int = 0,
        limit: int | float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        """Divide the samples among ranks and batches, in the same way for every kind of data.

        Args:
            sampler: how often a sample of each class is drawn, one of those in `src/kit/loading/balance.py`.
            limit: an integer is a number of batches, a float the share of them (at least one batch).
        """
        assert 0 <= rank < world_size, (rank, world_size)
        self.split, self.batch_size, self.sampler = split, batch_size, sampler
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = self.first_batch = 0
        self.samples = count_samples(split, shuffle, sampler, rank, world_size)
        self.batches = count_batches(self.samples, batch_size, drop_last, limit)
        if shuffle or drop_last:
            refuse_large_batch(batch_size, self.samples, world_size)

    def check_images(self, channels: int) -> None:
        """Refuse what cannot be meant."""
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise UserError(
                f"data.mean={list(self.mean)} and data.std={list(self.std)} must have one value for each of {channels} "
                f"channel{'s' * (channels > 1)}, and std must be above 0."
            )
        if self.augment not in AUGMENTATIONS:
            raise UserError(unknown("data.augment", self.augment, AUGMENTATIONS))
        if self.augment == "advanced" and channels not in (1, 3):
            raise UserError(f"data.augment=advanced is for images of 1 or 3 channels, not {channels}: use basic.")
        if not all(isinstance(size, int) and size > 0 for size in self.sizes or ()):
            raise UserError(f"data.sizes must be a list of heights in pixels or null, not {list(self.sizes or ())}.")
        if self.sampler != "none" and own_order(self.split):
            raise UserError(f"data.sampler={self.sampler} cannot be used with data that is read in its own order.")

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order and the augmentation of the iterations that begin from now on, and their first batch."""
        self.epoch, self.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        chosen = self.order()
        images = getattr(self.split, "images", None)  # annotated images have none
        if expect := getattr(images, "expect", None):  # shards are fetched ahead, in this order
            expect(chosen[self.first_batch * self.batch_size : self.batches * self.batch_size])
        prepare = partial(self.prepare, chosen, self.epoch)
        numbers = range(self.first_batch, self.batches)
        if self.num_workers == 0:
            return map(prepare, numbers)
        return prepare_ahead(lambda step: prepare(numbers[step]), len(numbers), self.num_workers)

    def order(self) -> np.ndarray:
        """This rank's sample numbers in the order of the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        return order(self.split, self.shuffle, self.sampler, self.rank, self.world_size, rng)

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.split.images.get(indices).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        images = resize(self.transform(images, rng), self.size(epoch, number) or images.shape[2:])
        normalised, targets = normalize(images, self.mean, self.std), self.split.targets[indices]
        if any(self.alphas):
            return mix(normalised, targets, len(self.split.classes), *self.alphas, rng)
        return normalised, targets

    def size(self, epoch: int, number: int) -> tuple[int, int] | None:
        """Height and width of batch `number`, the same on every rank; None leaves the images as they are."""
        if not self.sizes:
            return None
        size = np.random.default_rng([self.seed, epoch, number, 0, 1]).choice(self.sizes)
        return int(size), int(size)
