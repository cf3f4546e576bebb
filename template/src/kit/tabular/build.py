"""Build a table's splits. Preprocessing is learned from the training rows only."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import Batch, Loader, Split, order_options, refuse_keys
from src.kit.report import BLUE, FAINT, new_figure, save_figure, shorten
from src.kit.splitting import SplitRule
from src.kit.tabular.preprocessing import Preprocessing, fit, from_json, resample, select_columns
from src.kit.tabular.table import Table, is_missing, is_numeric, list_columns, number_or_none, refuse_strays, to_text
from src.kit.weights import load_metadata

MOST = 5000  # points drawn
COLUMNS = 40  # drawn
PARTS = ("train", "val", "test")
TARGETS = {"tabular": "classes", "tabular_regression": "number"}  # task -> data.target.kind that it predicts
STRATA = 10  # a target of numbers is stratified by this many quantiles


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


CACHE: dict[Any, dict[str, TableSplit]] = {}  # the splits of the last table: all are made together


class Target(NamedTuple):
    """The target column, without rows that lack a value."""

    rows: np.ndarray  # int64 (N,) indices of the rows with a target
    values: np.ndarray  # int64 (N,) class numbers, or float64 (N,)
    classes: tuple[str, ...]  # empty for numbers
    strata: np.ndarray  # int64 (N,): the splits are stratified by it


def load_table(read: Callable[[], Table], split: SplitRule, keys: Mapping[str, Any]) -> TableSplit:
    """Build one split of the table that `read` returns.


    Rows without a target are left out. The splits are stratified by class, or by the deciles of a number.

    Args:
        keys: the keys of `data`: target, columns, select, resample, preprocessing, and root where there is a file.

    Raises:
        UserError: the table or the keys leave nothing to learn from.
    """
    refuse_other_task(split, keys)
    path = Path(keys.get("root") or "").expanduser()
    state = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
    rule = replace(split, name="")
    key = (OmegaConf.to_yaml(OmegaConf.create(dict(keys))), rule, state)
    if key not in CACHE:
        CACHE.clear()
        CACHE[key] = build_splits(read(), rule, OmegaConf.create(dict(keys)))
    return CACHE[key][split.name]


def refuse_other_task(split: SplitRule, keys: Mapping[str, Any]) -> None:
    """Refuse a target of classes where the task predicts a number, and the reverse, before anything is read.

    Read as classes, numbers would be refused for another reason, such as a class with a single row.
    """
    target = keys["target"]
    if split.task not in TARGETS or target["kind"] == TARGETS[split.task]:
        return
    task = next(task for task, kind in TARGETS.items() if kind == target["kind"])
    values = {"classes": "classes", "number": "numbers"}[target["kind"]]
    own = f", or set data.target.kind={TARGETS[split.task]}" if "root" in keys else ""  # whose columns are not known
    raise UserError(
        f"The target column {target['column']!r} of data={split.data} holds {values}: set task={task}, not "
        f"{split.task}{own}."
    )


def build_splits(table: Table, rule: SplitRule, cfg_data: DictConfig) -> dict[str, TableSplit]:
    """Build all splits, with the same preprocessing."""
    target = read_target(table, cfg_data)
    refuse_class_keys(cfg_data, target)
    features = table.drop(cfg_data.target.column)
    refuse_strays(features, cfg_data.columns.categories)
    parts = {name: replace(rule, name=name).choose(target.strata, test=True) for name in PARTS}
    train = parts["train"]
    if cfg_data.preprocessing:
        preprocessing, target = load_preprocessing(Path(cfg_data.preprocessing), target, cfg_data)
    else:
        scaling = (0.0, 1.0) if target.classes else (target.values[train].mean(), target.values[train].std() or 1.0)
        preprocessing = fit(features.take(target.rows[train]), cfg_data.target.column, *map(float, scaling))
        inputs = preprocessing.transform(features.take(target.rows[train]))
        preprocessing = select_columns(preprocessing, inputs, target.values[train], cfg_data, rule.seed)
    splits = {}
    for name, part in parts.items():
        rows = target.rows[part]
        values, targets = preprocessing.transform(features.take(rows)), target.values[part]
        if name == "train" and cfg_data.resample != "none":
            numbers = len(preprocessing.numbers)
            values, targets, origin = resample(values, targets, numbers, cfg_data.resample, rule.seed)
            rows = np.where(origin < 0, -1, rows[origin])
        splits[name] = TableSplit(Rows(values), targets, target.classes, False, rows, preprocessing=preprocessing)
    return splits


def load_preprocessing(weights: Path, target: Target, cfg_data: DictConfig) -> tuple[Preprocessing, Target]:
    """Load a run's preprocessing, and renumber the target's classes as in that run.

    Raises:
        UserError: the weights are not from a table, or the target has a class that the run did not have.
    """
    metadata = load_metadata(weights)
    if "preprocessing" not in metadata:
        raise UserError(f"{weights} was not trained on a table: set data.preprocessing to one that was, or to null.")
    preprocessing = from_json(metadata["preprocessing"])
    if not target.classes:
        return preprocessing, target
    classes = tuple(json.loads(metadata["classes"]))
    if strays := [repr(name) for name in target.classes if name not in classes]:
        raise UserError(
            f"The target column {cfg_data.target.column!r} has {', '.join(strays[:5])}, and {weights} was trained on "
            f"{', '.join(map(repr, classes[:5]))} only: leave these rows out."
        )
    numbers = np.array([classes.index(name) for name in target.classes])
    return preprocessing, target._replace(values=numbers[target.values], classes=classes)


def refuse_class_keys(cfg_data: DictConfig, target: Target) -> None:
    """Refuse keys that need classes if the target is a number."""
    if not target.classes:
        why = f"needs classes, and the target {cfg_data.target.column!r} is a number"
        refuse_keys(cfg_data, {"resample": "none"}, why)


def read_target(table: Table, cfg_data: DictConfig) -> Target:
    """Read the column `cfg_data.target.column` as `cfg_data.target.kind` says.

    Raises:
        UserError: no such column, values of another kind, or fewer than two different ones.
    """
    name, kind = cfg_data.target.column, cfg_data.target.kind
    if name not in table.columns:
        raise UserError(f"The table has no column {name!r} for data.target.column: {list_columns(table.columns)}.")
    if len(table.columns) == 1:
        raise UserError(
            f"The table has no column but the target {name!r}, so there is nothing to predict it from: check "
            "data.columns.delimiter and data.columns.drop."
        )
    column = table.columns[name]
    rows = np.flatnonzero(~is_missing(column))
    column = column[rows]
    target = read_classes(rows, column, name) if kind == "classes" else read_numbers(rows, column, name)
    different = len(np.unique(target.values))
    if different < 2:
        values, rows_in_all = "no value" if different == 0 else "1 value", len(table)
        raise UserError(
            f"The target column {name!r} has {values} in {rows_in_all:,} row{'s' * (rows_in_all != 1)}: at least 2 "
            "different ones are needed."
        )
    return target


def read_classes(rows: np.ndarray, column: np.ndarray, name: str) -> Target:
    """Number the classes in numerical or alphabetical order."""
    if is_numeric(column) and (fractions := column[column != np.floor(column)]).size:
        raise UserError(
            f"The target column {name!r} has numbers such as {fractions[0]:g}, which are not classes: set "
            "data.target.kind=number and task=tabular_regression."
        )
    # sorted as numbers: as texts, 10 would come before 9
    values, numbers = np.unique(column if is_numeric(column) else column.astype(str), return_inverse=True)
    classes = tuple(str(value) for value in to_text(values))
    return Target(rows, numbers.astype(np.int64), classes, numbers.astype(np.int64))


def read_numbers(rows: np.ndarray, column: np.ndarray, name: str) -> Target:
    """Numbers, stratified by their deciles."""
    if not is_numeric(column):
        stray = next((text for text in column if number_or_none(text) is None), None)
        raise UserError(
            f"The target column {name!r} must hold numbers, but it has {stray!r}: fix it, or set "
            "data.target.kind=classes and task=tabular."
        )
    limits = np.quantile(column, np.arange(1, STRATA) / STRATA) if len(column) else column
    return Target(rows, column, (), np.searchsorted(limits, column).astype(np.int64))
