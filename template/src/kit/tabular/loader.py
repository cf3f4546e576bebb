"""Batches of a table's rows, ready for any framework."""

from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import Batch, Loader, order_options, refuse_keys
from src.kit.tabular.split import TableSplit


class TableLoader(Loader):
    """Iterating gives `(inputs, targets)`: float32 (B, F), and int64 (B,) classes.

    Where a number is predicted, targets are float32 (B, 3): how many standard deviations it is from the mean, this mean
    and this standard deviation, both of the training rows: networks learn what is near 0, and people read the unit.

    Order, ranks, limits and `set_epoch` are those of `Loader`. There is nothing to prepare, so no thread does it.

    Raises:
        UserError: a batch larger than the training data, or a limit out of its range.
    """

    def __init__(self, split: TableSplit, batch_size: int, **sharing: Any) -> None:
        """`sharing` is as `Loader.share_out` says."""
        self.share_out(split, batch_size, **sharing)
        self.inputs, self.num_workers = split.images.values, 0

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
        UserError: as `TableLoader`, or a key that changes images is set.
    """
    off = {"augment": "none", "mixup_alpha": 0, "cutmix_alpha": 0, "sizes": None}
    refuse_keys(cfg.data, off, f"is for images, and data={cfg.data.name} is a table")
    if not split.classes:
        refuse_keys(cfg.data, {"sampler": "none"}, f"needs classes, and the target of data={cfg.data.name} is a number")
    return TableLoader(split, cfg.data.batch_size, **order_options(cfg, kind, rank, world_size))
