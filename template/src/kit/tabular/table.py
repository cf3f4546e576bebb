"""A table in memory: named columns of numbers or of text."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from src.kit.config import UserError

MOSTLY = 0.9  # a text column with more numbers among its values was meant to be one of numbers


@dataclass(frozen=True)
class Table:
    """Columns by name, all of the same length: float64 with NaN for what is missing, or object with str and None."""

    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        assert self.columns, "a table has columns"
        assert len({len(column) for column in self.columns.values()}) == 1
        assert all(column.dtype.kind in "fO" for column in self.columns.values())

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, rows: np.ndarray) -> "Table":
        """The rows at these indices, or where a mask is true, in this order."""
        return Table({name: column[rows] for name, column in self.columns.items()})

    def drop(self, name: str) -> "Table":
        """The table without one column."""
        return Table({other: column for other, column in self.columns.items() if other != name})


def is_numeric(column: np.ndarray) -> bool:
    """Whether it is a column of numbers."""
    return column.dtype.kind == "f"


def is_missing(column: np.ndarray) -> np.ndarray:
    """Where there is no value, bool (N,). An infinite number counts as missing."""
    if is_numeric(column):
        return ~np.isfinite(column)
    return np.array([value is None for value in column], bool)


def to_text(column: np.ndarray) -> np.ndarray:
    """The column as text, object (N,): whole numbers without a decimal point, None where a value is missing."""
    if not is_numeric(column):
        return column
    texts = [None if not math.isfinite(value) else f"{value:.17g}" for value in column.tolist()]
    return np.array(texts, object)


def number_or_none(text: str) -> float | None:
    """The number that a text stands for, None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def stray_text(column: np.ndarray) -> tuple[int, str] | None:
    """Row and value of the first text in a column that nearly always holds numbers, None in any other column."""
    if is_numeric(column):
        return None
    known = [(row, value) for row, value in enumerate(column) if value is not None]
    strays = [(row, value) for row, value in known if number_or_none(value) is None]
    return strays[0] if strays and len(strays) <= (1 - MOSTLY) * len(known) else None


def refuse_strays(table: Table, allowed: Collection[str]) -> None:
    """Refuse a column of numbers with a few texts among them, typing errors or marks for what is missing.

    Columns named in `allowed` hold categories, whatever they look like.

    Raises:
        UserError: names the column, the row and the text.
    """
    for name, column in table.columns.items():
        if name not in allowed and (stray := stray_text(column)):
            raise UserError(
                f"The column {name!r} holds numbers, but row {stray[0] + 1} has {stray[1]!r}: mend it, leave it empty, "
                "or list the column in data.columns.categories."
            )
