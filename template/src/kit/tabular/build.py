"""Build a table's splits. Preprocessing is learned from the training rows only."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import refuse_keys
from src.kit.splitting import SplitRule
from src.kit.tabular.forms import (
    Form,
    Recognised,
    interpret,
    many_categories,
    recognise,
    refuse_strays,
)
from src.kit.tabular.preprocessing import MOST_CATEGORIES, Preprocessing, fit, from_json, resample, select_columns
from src.kit.tabular.rows import Rows, TableSplit
from src.kit.tabular.table import Table, is_missing, is_numeric, list_columns, to_text
from src.kit.tabular.written import read_number
from src.kit.weights import load_metadata

PARTS = ("train", "val", "test")
TARGETS = {"tabular": "classes", "tabular_regression": "number"}  # task -> data.target.kind that it predicts
STRATA = 10  # a target of numbers is stratified by this many quantiles


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
    rule = split if split.holds_all else replace(split, name="")
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


def build_splits(raw: Table, rule: SplitRule, cfg_data: DictConfig) -> dict[str, TableSplit]:
    """Build all splits, with the same preprocessing; if `rule` has a name, only that one."""
    fitted = read_fitted(cfg_data.preprocessing)
    recognised = recognise_columns(raw, cfg_data)
    forms = recognised.forms if fitted is None else known_forms(fitted.forms, raw)
    if fitted is None:
        refuse_strays(raw, {name: form for name, form in forms.items() if name != cfg_data.target.column})
    table = interpret(raw, forms)
    target = read_target(table, cfg_data, whole=fitted is not None)
    refuse_class_keys(cfg_data, target)
    features = table.drop(cfg_data.target.column)
    notes, doubts = (tuple(f"The column {text}." for _, text in texts) for texts in recognised[1:])
    parts = choose_parts(rule, target)
    if fitted:
        preprocessing, target = fitted, renumber(target, cfg_data)
        notes, doubts = (), ()
    else:
        train = parts.get("train", next(iter(parts.values())))
        mean, scale = (0.0, 1.0) if target.classes else (target.values[train].mean(), target.values[train].std() or 1.0)
        known = features.take(target.rows[train])
        doubts += tuple(f"The column {text}." for _, text in many_categories(known, MOST_CATEGORIES))
        preprocessing = fit(known, cfg_data.target.column, float(mean), float(scale), forms)
        inputs = preprocessing.encode(known)
        preprocessing = select_columns(preprocessing, inputs, target.values[train], cfg_data, rule.seed)
    splits = {}
    for name, part in parts.items():
        rows = target.rows[part]
        values, targets = preprocessing.encode(features.take(rows)), target.values[part]
        if name == "train" and cfg_data.resample != "none":
            numbers = len(preprocessing.numbers)
            values, targets, origin = resample(values, targets, numbers, cfg_data.resample, rule.seed)
            rows = np.where(origin < 0, -1, rows[origin])
        splits[name] = TableSplit(
            Rows(values), targets, target.classes, False, rows, preprocessing=preprocessing, notes=notes, doubts=doubts
        )
    return splits


def choose_parts(rule: SplitRule, target: "Target") -> dict[str, np.ndarray]:
    """The rows of each split, or of the only one that `rule` names, as indices into the rows with a target."""
    names = [rule.name] if rule.name else PARTS
    return {name: replace(rule, name=name).choose(target.strata, test=True) for name in names}


def recognise_columns(table: Table, cfg_data: DictConfig) -> Recognised:
    """The forms of the columns; a target of classes stays as it is, and a date as target gives no parts."""
    name = cfg_data.target.column
    if cfg_data.target.kind == "classes" and name in table.columns and len(table.columns) > 1:
        table = table.drop(name)
    return recognise(table, cfg_data.columns, name)


def known_forms(forms: Mapping[str, Form], table: Table) -> dict[str, Form]:
    """The forms of the columns that a table has."""
    return {name: form for name, form in forms.items() if name in table.columns}


def read_fitted(weights: str | None) -> Preprocessing | None:
    """The preprocessing of the run whose model.safetensors is given, if one is.

    Raises:
        UserError: the weights are not from a table.
    """
    if not weights:
        return None
    metadata = load_metadata(Path(weights))
    if "preprocessing" not in metadata:
        raise UserError(f"{weights} was not trained on a table: set data.preprocessing to one that was, or to null.")
    return from_json(metadata["preprocessing"])


def renumber(target: "Target", cfg_data: DictConfig) -> "Target":
    """Renumber the target's classes as in the run that `data.preprocessing` names.

    Raises:
        UserError: the target has a class that the run did not have.
    """
    if not target.classes:
        return target
    classes = tuple(json.loads(load_metadata(Path(cfg_data.preprocessing))["classes"]))
    if strays := [repr(name) for name in target.classes if name not in classes]:
        raise UserError(
            f"The target column {cfg_data.target.column!r} has {', '.join(strays[:5])}, and {cfg_data.preprocessing} "
            f"was trained on {', '.join(map(repr, classes[:5]))} only: leave these rows out."
        )
    numbers = np.array([classes.index(name) for name in target.classes], np.int64)
    return target._replace(values=numbers[target.values], classes=classes)


def refuse_class_keys(cfg_data: DictConfig, target: Target) -> None:
    """Refuse keys that need classes if the target is a number."""
    if not target.classes:
        why = f"needs classes, and the target {cfg_data.target.column!r} is a number"
        refuse_keys(cfg_data, {"resample": "none"}, why)


def read_target(table: Table, cfg_data: DictConfig, whole: bool = False) -> Target:
    """Read the column `cfg_data.target.column` as `cfg_data.target.kind` says.

    Args:
        whole: whether the rows are only scored, for which a single value is enough.

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
    if different < 2 - whole:
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
        stray = next((text for text in column if read_number(text) is None), None)
        raise UserError(
            f"The target column {name!r} must hold numbers, but it has {stray!r}: fix it, or set "
            "data.target.kind=classes and task=tabular."
        )
    limits = np.quantile(column, np.arange(1, STRATA) / STRATA) if len(column) else column
    return Target(rows, column, (), np.searchsorted(limits, column).astype(np.int64))
