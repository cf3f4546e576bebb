"""Batches of a table's rows, ready for any framework."""

import numpy as np
from omegaconf import DictConfig

from src.datasets.loading.loader import Batch, Loader
from src.datasets.loading.order import count_batches, count_samples
from src.datasets.tabular.split import TableSplit
from src.utils.errors import UserError


class TableLoader(Loader):
    """Iterating gives `(inputs, targets)`: float32 (B, F), and int64 (B,) classes.

    Where a number is predicted, targets are float32 (B, 3): how many standard deviations it is from the mean, this mean
    and this standard deviation, both of the training rows: networks learn what is near 0, and people read the unit.

    Order, ranks, limits and `set_epoch` are those of `Loader`. There is nothing to prepare, so no thread does it.

    Raises:
        UserError: a batch larger than the training data, or a limit out of its range.
    """

    def __init__(
        self,
        split: TableSplit,
        batch_size: int,
        sampler: str = "none",
        shuffle: bool = False,
        seed: int = 0,
        limit: int | float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        assert 0 <= rank < world_size, (rank, world_size)
        self.split: TableSplit = split
        self.inputs, self.batch_size, self.sampler = split.images.values, batch_size, sampler
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = self.first_batch = self.num_workers = 0
        self.samples = count_samples(split, shuffle, sampler, rank, world_size)
        self.batches = count_batches(self.samples, batch_size, drop_last, limit)
        self.check_batch(training=shuffle or drop_last)

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        targets = self.split.targets[indices]
        if self.split.classes:
            return self.inputs[indices], targets
        mean, scale = self.split.preprocessing.target_mean, self.split.preprocessing.target_scale
        columns = [(targets - mean) / scale, np.full(len(targets), mean), np.full(len(targets), scale)]
        return self.inputs[indices], np.stack(columns, axis=1).astype(np.float32)


def build_table_loader(
    cfg: DictConfig, split: TableSplit, kind: str, rank: int = 0, world_size: int = 1
) -> TableLoader:
    """Batches of `split`; `kind` is train (shuffled), val or test; `rank` is one of `world_size`.

    Raises:
        UserError: as `TableLoader`, or the task is to predict a number and the target holds classes, or the reverse.
    """
    if (cfg.task == "tabular") != bool(split.classes):
        task, held = ("tabular", "classes") if split.classes else ("tabular_regression", "numbers")
        raise UserError(
            f"The target column {split.preprocessing.target!r} of data={cfg.data.name} holds {held}: set task={task}, "
            f"not {cfg.task}."
        )
    train = kind == "train"
    return TableLoader(
        split,
        cfg.data.batch_size,
        sampler=cfg.data.sampler if train else "none",
        shuffle=train,
        seed=cfg.seed,
        limit=cfg.trainer[f"limit_{kind}_batches"],
        rank=rank,
        world_size=world_size,
    )
