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
from src.kit.tabular.table import Table, is_missing, is_numeric, no_column, to_text
from src.kit.tabular.target import fit_transform, transform_target
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
    features = drop_split_columns(table.drop(cfg_data.target.column), cfg_data)
    notes, doubts = (tuple(f"The column {text}." for _, text in texts) for texts in recognised[1:])
    parts = choose_parts(rule, target, table, cfg_data)
    if fitted:
        preprocessing, target = fitted, renumber(target, cfg_data)
        notes, doubts = (), ()
    else:
        train = parts.get("train", next(iter(parts.values())))
        transform = cfg_data.target.get("transform", "none")
        knots = fit_transform(target.values[train], transform, cfg_data.target.column) if not target.classes else ()
        near = transform_target(target.values[train], transform, knots)
        mean, scale = (0.0, 1.0) if target.classes else (near.mean(), near.std() or 1.0)
        known = features.take(target.rows[train])
        doubts += tuple(f"The column {text}." for _, text in many_categories(known, MOST_CATEGORIES))
        preprocessing = fit(known, cfg_data.target.column, float(mean), float(scale), forms)
        preprocessing = replace(preprocessing, target_transform=transform, target_knots=knots)
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


def choose_parts(rule: SplitRule, target: "Target", table: Table, cfg_data: DictConfig) -> dict[str, np.ndarray]:
    """The rows of each split, or of the only one that `rule` names, as indices into the rows with a target.

    They are drawn at random, with whole groups of `data.split_by.group`; or the newest rows by `data.split_by.time` are
    the test split, those before them the validation split.

    Raises:
        UserError: no such column, both of them, a time that is missing or no number or date, or folds by time.
    """
    if rule.name:
        return {rule.name: rule.choose(target.strata, test=True)}
    by = {key: name for key, name in (cfg_data.get("split_by") or {}).items() if name}
    if len(by) == 2:
        raise UserError("data.split_by.group and data.split_by.time exclude each other: set one.")
    for key, name in by.items():
        if name not in table.columns:
            raise UserError(f"The table has {no_column(name, f'for data.split_by.{key}', table.columns)}.")
    if "time" in by:
        return split_by_time(rule, table.columns[by["time"]][target.rows], by["time"])
    groups = number_groups(table.columns[by["group"]][target.rows]) if "group" in by else None
    return {name: replace(rule, name=name).choose(target.strata, test=True, groups=groups) for name in PARTS}


def drop_split_columns(features: Table, cfg_data: DictConfig) -> Table:
    """Leave out what splits the rows and says nothing of new ones: the group, and of the time all that only grows."""
    for name in filter(None, (cfg_data.get("split_by") or {}).values()):
        for column in (name, f"{name} (year)"):
            if column in features.columns and len(features.columns) > 1:
                features = features.drop(column)
    return features


def number_groups(column: np.ndarray) -> np.ndarray:
    """The group number of each row, int64 (N,); a row without a value is a group of its own."""
    missing = is_missing(column)
    numbers = np.unique(np.where(missing, "", to_text(column)).astype(str), return_inverse=True)[1].astype(np.int64)
    numbers[missing] = numbers.max(initial=0) + 1 + np.arange(missing.sum())
    return numbers


def split_by_time(rule: SplitRule, column: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """The oldest rows are for training, the newest for testing; rows of one moment stay together."""
    if not is_numeric(column) or is_missing(column).any():
        raise UserError(f"data.split_by.time={name} must be a column of numbers or dates without missing values.")
    if rule.fold is not None:
        raise UserError("data.split_by.time has one order and no folds: leave trainer.folds out.")
    shares = [1 - rule.val_fraction - rule.test_fraction, 1 - rule.test_fraction]
    if shares[0] <= 0:
        raise UserError("data.val_fraction and data.test_fraction must sum to less than 1.")
    limits = np.quantile(column, shares, method="lower")
    part = np.searchsorted(limits, column)  # 0 up to the first limit, 1 up to the second, 2 beyond
    return {kind: np.flatnonzero(part == number) for number, kind in enumerate(PARTS)}


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
        raise UserError(f"The table has {no_column(name, 'for data.target.column', table.columns)}.")
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
