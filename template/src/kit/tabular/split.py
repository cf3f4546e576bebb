"""A table's rows as a split, and batches of them for any framework."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import Batch, Loader, Split, order_options, refuse_keys
from src.kit.tabular.preprocessing import Preprocessing


class Rows:
    """Encoded rows in memory, with the interface of images: one pixel with F channels each."""

    in_memory = True

    def __init__(self, values: np.ndarray) -> None:
        """`values`: float32 (N, F)."""
        assert values.dtype == np.float32, values.dtype
        assert values.ndim == 2, values.shape
        self.values = values
        self.shape = (1, 1, values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """float32 (B, 1, 1, F), a copy."""
        return self.values[indices][:, None, None]

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at these indices, in this order."""
        return Rows(self.values[indices])


@dataclass(frozen=True)
class TableSplit(Split):
    """The rows of one split: `images` is a `Rows`.

    `targets` are int64 (N,) indices into `classes`; or, to predict a number, float64 (N,) in its own unit, and
    `classes` is empty. `ids` are the rows' numbers in the table, -1 for synthetic rows.
    """

    content: ClassVar[str] = "the rows of a table"
    unit: ClassVar[str] = "rows"
    images: Rows
    preprocessing: Preprocessing = field(kw_only=True)

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets), (len(self.images), len(self.targets))
        assert self.targets.dtype == (np.int64 if self.classes else np.float64), self.targets.dtype

    def class_counts(self) -> np.ndarray:
        """Number of rows of each class, int64 (K,); empty if the target is a number."""
        return super().class_counts() if self.classes else np.empty(0, np.int64)


class TableLoader(Loader):
    """Iterate over batches `(inputs, targets)`: float32 (B, F) and int64 (B,) classes.

    To predict a number, targets are float32 (B, 3): the standardised number, and the mean and standard deviation of the
    training rows. Networks learn values near 0, while scores are in the number's own unit.

    Order, ranks, limits and `set_epoch` work as in `Loader`. Batches need no preparation, so there are no threads.

    Raises:
        UserError: a batch larger than the training split, or a limit out of range.
    """

    def __init__(self, split: TableSplit, batch_size: int, **sharing: Any) -> None:
        """`sharing`: see `Loader.share_out`."""
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
    """Build the loader of a split.

    Args:
        kind: "train" (shuffled), "val" or "test".
        rank: this process, from 0 to `world_size` - 1.

    Raises:
        UserError: as `TableLoader`, or a key for images is set.
    """
    off = {"augment": "none", "mixup_alpha": 0, "cutmix_alpha": 0, "sizes": None}
    refuse_keys(cfg.data, off, f"is for images, and data={cfg.data.name} is a table")
    if not split.classes:
        refuse_keys(cfg.data, {"sampler": "none"}, f"needs classes, and the target of data={cfg.data.name} is a number")
    return TableLoader(split, cfg.data.batch_size, **order_options(cfg, kind, rank, world_size))
