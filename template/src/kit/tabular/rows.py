"""Encoded rows: the splits and batches of a table, and their figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import Batch, Loader, Split, order_options, refuse_keys
from src.kit.report import BLUE, FAINT, new_figure, save_figure, shorten
from src.kit.tabular.preprocessing import Preprocessing

MOST = 5000  # points drawn
COLUMNS = 40  # drawn


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
    `classes` is empty. `ids` are the rows' numbers in the table, -1 for synthetic rows. `notes` are sentences about
    what was recognised in the table, and `doubts` those that need a look.
    """

    content: ClassVar[str] = "the rows of a table"
    unit: ClassVar[str] = "rows"
    images: Rows
    preprocessing: Preprocessing = field(kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    doubts: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets), (len(self.images), len(self.targets))
        assert self.targets.dtype == (np.int64 if self.classes else np.float64), self.targets.dtype

    def class_counts(self) -> np.ndarray:
        """Number of rows of each class, int64 (K,); empty if the target is a number."""
        return super().class_counts() if self.classes else np.empty(0, np.int64)


class TableLoader(Loader):
    """Iterate over batches `(inputs, targets)`: float32 (B, F) and int64 (B,) classes.

    To predict a number, targets are float32 (B, 3): the number, transformed and standardised, and the mean and standard
    deviation of the training rows. Networks learn values near 0, while scores are in the number's own unit.

    Order, ranks, limits and `set_epoch` work as in `Loader`. Batches need no preparation, so there are no threads.

    Raises:
        UserError: a batch larger than the training split, or a limit out of range.
    """

    def __init__(self, split: TableSplit, batch_size: int | Sequence[int], **sharing: Any) -> None:
        """`sharing`: see `Loader.share_out`."""
        self.share_out(split, batch_size, **sharing)
        self.inputs, self.num_workers = split.images.values, 0

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        """Make batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        targets = self.split.targets[indices]
        if self.split.classes:
            return self.inputs[indices], targets
        fitted = self.split.preprocessing
        mean, scale = np.full(len(targets), fitted.target_mean), np.full(len(targets), fitted.target_scale)
        columns = [fitted.encode_target(targets), mean, scale]
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
    off = {"augment": "none", "mixup_alpha": 0, "cutmix_alpha": 0, "sizes": None, "shift": None, "border": "black"}
    refuse_keys(cfg.data, off, f"is for images, and data={cfg.data.name} is a table")
    if not split.classes:
        refuse_keys(cfg.data, {"sampler": "none"}, f"needs classes, and the target of data={cfg.data.name} is a number")
    return TableLoader(split, **order_options(cfg, kind, rank, world_size))


def draw_rows(values: np.ndarray, columns: Sequence[str], targets: Sequence[str], path: Path) -> Path:
    """Draw encoded rows (N, F) with their targets: blue is below the column's mean, red above.

    Returns:
        `path`, of the PNG file.
    """
    values, columns = values[:, :COLUMNS], columns[:COLUMNS]
    figure = new_figure(3.0 + 0.28 * len(columns), 2.2 + 0.22 * len(values))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), [shorten(name, 22) for name in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(values)), [shorten(name, 16) for name in targets], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Training rows")
    figure.colorbar(image, shrink=0.6, label="standard deviations, or a code")
    return save_figure(figure, path)


def draw_numbers(predicted: np.ndarray, true: np.ndarray, name: str, path: Path) -> Path:
    """Draw predicted against true numbers (N,), a random 5,000 of them, with the diagonal.

    Returns:
        `path`, of the PNG file.
    """
    chosen = np.random.default_rng(0).permutation(len(true))[:MOST]
    figure = new_figure(5.2, 5.0)
    axes = figure.add_subplot()
    ends = [min(predicted.min(), true.min()), max(predicted.max(), true.max())]
    axes.plot(ends, ends, color=FAINT, linewidth=1)
    axes.scatter(true[chosen], predicted[chosen], s=10, color=BLUE, alpha=0.5, linewidths=0)
    axes.set_title(f"Predictions of {name}")
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    return save_figure(figure, path)
