"""Batches of a split as NumPy arrays, ready for any framework."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from src.datasets.base import Split
from src.datasets.transforms import AUGMENTATIONS, augment, normalize
from src.utils.errors import UserError
from src.utils.registry import unknown

MAX_WORKERS = 8

Batch = tuple[np.ndarray, np.ndarray]


class Loader:
    """Iterating gives new arrays `(images, targets)`: normalised float32 (B, C, H, W) and int64 (B,).

    The order and the augmentation depend on `seed`, the epoch and `rank` only, not on the number of workers. With
    `shuffle` every rank gets equally many samples, by repeating a few; without it each sample goes to one rank only.

    Args:
        mean, std: one value for each channel, for pixels of 0 to 1.
        augment: one of `AUGMENTATIONS`.
        limit: an integer is a number of batches, a float the share of them (at least one batch).
        num_workers: threads that prepare batches ahead; 0 prepares each one when it is asked for; None: as many as
            cores, up to 8, for images in files, and 0 for images in memory.

    Raises:
        UserError: a batch larger than the training data, another number of channels than `mean` and `std` have, an
            unknown augmentation or one that changes the class, a limit out of its range.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: str = "none",
        shuffle: bool = False,
        seed: int = 0,
        limit: int | float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        num_workers: int | None = None,
    ) -> None:
        assert 0 <= rank < world_size, (rank, world_size)
        self.split, self.batch_size, self.augment = split, batch_size, augment
        self.mean, self.std = tuple(mean), tuple(std)
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        self.samples = -(-len(split) // world_size) if shuffle else len(range(rank, len(split), world_size))
        self.batches = count_batches(self.samples, batch_size, drop_last, limit)
        automatic = 0 if split.images.in_memory else min(MAX_WORKERS, os.cpu_count() or 1)
        self.num_workers = automatic if num_workers is None else num_workers
        self.check(training=shuffle or drop_last)

    def check(self, training: bool) -> None:
        """Refuse what cannot be meant."""
        if training and self.batch_size > self.samples:
            share = f" for each of {self.world_size} devices" if self.world_size > 1 else ""
            raise UserError(
                f"data.batch_size={self.batch_size} is more than the {self.samples} training samples{share}: "
                "make it smaller."
            )
        channels = self.split.images.shape[2]
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise UserError(
                f"data.mean={list(self.mean)} and data.std={list(self.std)} must have one value for each of {channels} "
                f"channel{'s' * (channels > 1)}, and std must be above 0."
            )
        if self.augment not in AUGMENTATIONS:
            raise UserError(unknown("data.augment", self.augment, AUGMENTATIONS))
        if "flip" in self.augment and not self.split.flippable:
            raise UserError(
                f"data.augment={self.augment} mirrors images, and a mirrored image of this data is wrong: use shift."
            )

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the iterations that begin from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        prepare = partial(self.prepare, self.order(), self.epoch)
        if self.num_workers == 0:
            return map(prepare, range(self.batches))
        return prepare_ahead(prepare, self.batches, self.num_workers)

    def order(self) -> np.ndarray:
        """This rank's sample numbers in the order of the current epoch."""
        if not self.shuffle:
            return np.arange(self.rank, len(self.split), self.world_size)
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.split))
        return np.resize(shuffled, self.samples * self.world_size)[self.rank :: self.world_size]

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.split.images.get(indices).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        return normalize(augment(images, self.augment, rng), self.mean, self.std), self.split.targets[indices]


def count_batches(samples: int, batch_size: int, drop_last: bool, limit: int | float) -> int:
    """How many batches an iteration has."""
    whole = samples // batch_size if drop_last else -(-samples // batch_size)
    if limit <= 0 or (isinstance(limit, float) and limit > 1):
        raise UserError(
            f"A limit of batches must be an integer from 1 or a fraction above 0 and up to 1.0, not {limit!r}."
        )
    return min(whole, limit if isinstance(limit, int) else max(1, int(whole * limit)))


def prepare_ahead(prepare: partial[Batch], batches: int, workers: int) -> Iterator[Batch]:
    """Yield `prepare(0), prepare(1), ...` in order, with `workers` threads a few batches ahead."""
    pool = ThreadPoolExecutor(workers, "loader")
    try:
        waiting: deque[Future[Batch]] = deque()
        for number in range(batches + workers + 1):
            if number < batches:
                waiting.append(pool.submit(prepare, number))
            if number > workers:
                yield waiting.popleft().result()
    finally:  # also where the iteration is abandoned
        pool.shutdown(cancel_futures=True)
