"""From a table to its splits: everything that is learned about the columns is learned from the training rows."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import refuse_keys
from src.kit.splitting import SplitRule
from src.kit.tabular.preprocessing import Preprocessing, fit, from_json
from src.kit.tabular.resample import resample
from src.kit.tabular.select import select
from src.kit.tabular.split import Rows, TableSplit
from src.kit.tabular.table import Table, refuse_strays
from src.kit.tabular.target import Target, read_target
from src.kit.weights import load_metadata

PARTS = ("train", "val", "test")
TARGETS = {"tabular": "classes", "tabular_regression": "number"}  # task -> data.target.kind that it predicts
CACHE: dict[Any, dict[str, TableSplit]] = {}  # the splits of the last table: all are made together


def load_table(read: Callable[[], Table], split: SplitRule, keys: Mapping[str, Any]) -> TableSplit:
    """Build one split of the table that `read` returns.

    Rows without a target are left out. The splits are stratified by class, or by the deciles of a number.

    Args:
        keys: the keys of `data`: target, columns, select, resample, preprocessing, and root where there is a file.

    Raises:
        UserError: a table or keys that nothing can be learned from.
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
    refuse(cfg_data, target)
    features = table.drop(cfg_data.target.column)
    refuse_strays(features, cfg_data.columns.categories)
    parts = {name: replace(rule, name=name).choose(target.strata, test=True) for name in PARTS}
    train = parts["train"]
    if cfg_data.preprocessing:
        preprocessing, target = as_trained(Path(cfg_data.preprocessing), target, cfg_data)
    else:
        scaling = (0.0, 1.0) if target.classes else (target.values[train].mean(), target.values[train].std() or 1.0)
        preprocessing = fit(features.take(target.rows[train]), cfg_data.target.column, *map(float, scaling))
        inputs = preprocessing.transform(features.take(target.rows[train]))
        preprocessing = select(preprocessing, inputs, target.values[train], cfg_data, rule.seed)
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


def as_trained(weights: Path, target: Target, cfg_data: DictConfig) -> tuple[Preprocessing, Target]:
    """What a run learned about the columns, and the target with that run's class numbers.

    Raises:
        UserError: the weights are not of a table, or the target has a class that they don't know.
    """
    metadata = load_metadata(weights)
    if "preprocessing" not in metadata:
        raise UserError(f"{weights} was not trained on a table: set data.preprocessing to a file that was, or to null.")
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


def refuse(cfg_data: DictConfig, target: Target) -> None:
    """Refuse keys that need classes where the target is a number."""
    if not target.classes:
        why = f"needs classes, and the target {cfg_data.target.column!r} is a number"
        refuse_keys(cfg_data, {"resample": "none"}, why)
