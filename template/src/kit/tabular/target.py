"""The column that is to be predicted: classes or a number."""

from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.tabular.read import shown
from src.kit.tabular.table import Table, is_missing, is_numeric, number_or_none, to_text

STRATA = 10  # groups of numbers of which each split gets its share


class Target(NamedTuple):
    """The target of the rows that have one."""

    rows: np.ndarray  # int64 (N,) numbers of the rows with a target; the others are left out
    values: np.ndarray  # int64 (N,) class numbers, or float64 (N,)
    classes: tuple[str, ...]  # empty for numbers
    strata: np.ndarray  # int64 (N,): what the splits are stratified by


def read_target(table: Table, cfg_data: DictConfig) -> Target:
    """Read the column `cfg_data.target.column` as `cfg_data.target.kind` says.

    Raises:
        UserError: there is no such column, it has fewer than two values, or values of another kind.
    """
    name, kind = cfg_data.target.column, cfg_data.target.kind
    if name not in table.columns:
        raise UserError(f"The table has no column {name!r} for data.target.column: {shown(table.columns)}.")
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
            f"The target column {name!r} has {values} in {rows_in_all:,} row{'s' * (rows_in_all != 1)}, and at least 2 "
            "different ones are needed to learn anything."
        )
    return target


def read_classes(rows: np.ndarray, column: np.ndarray, name: str) -> Target:
    """Classes in the order of their numbers, or of the alphabet."""
    if is_numeric(column) and (fractions := column[column != np.floor(column)]).size:
        raise UserError(
            f"The target column {name!r} has numbers such as {fractions[0]:g}, which are no classes: set "
            "data.target.kind=number and task=tabular_regression."
        )
    # of numbers, `values` is sorted by size; as texts, 10 would come before 9
    values, numbers = np.unique(column if is_numeric(column) else column.astype(str), return_inverse=True)
    classes = tuple(str(value) for value in to_text(values))
    return Target(rows, numbers.astype(np.int64), classes, numbers.astype(np.int64))


def read_numbers(rows: np.ndarray, column: np.ndarray, name: str) -> Target:
    """Numbers; the splits are stratified by their deciles."""
    if not is_numeric(column):
        stray = next((text for text in column if number_or_none(text) is None), None)
        raise UserError(
            f"The target column {name!r} must hold numbers, but it has {stray!r}: mend it, or set "
            "data.target.kind=classes and task=tabular."
        )
    limits = np.quantile(column, np.arange(1, STRATA) / STRATA) if len(column) else column
    return Target(rows, column, (), np.searchsorted(limits, column).astype(np.int64))
