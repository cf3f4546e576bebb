"""A table in memory."""

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length, each of one type.

    float64 with NaN, object with str and None, or datetime64[us] with NaT, where the latter are missing values.
    """

    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        assert self.columns, "a table has columns"
        assert len({len(column) for column in self.columns.values()}) == 1
        assert all(column.dtype.kind in "fOM" for column in self.columns.values())

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def take(self, rows: np.ndarray) -> "Table":
        """The rows at these indices (or where a mask is true), in this order."""
        return Table({name: column[rows] for name, column in self.columns.items()})

    def drop(self, name: str) -> "Table":
        """The table without one column."""
        return Table({other: column for other, column in self.columns.items() if other != name})


def is_numeric(column: np.ndarray) -> bool:
    """Whether the column holds numbers."""
    return column.dtype.kind == "f"


def is_missing(column: np.ndarray) -> np.ndarray:
    """Mask of missing values, bool (N,). Infinite numbers count as missing."""
    if is_numeric(column):
        return ~np.isfinite(column)
    if column.dtype.kind == "M":
        return np.isnat(column)
    return np.array([value is None for value in column], bool)


def to_text(column: np.ndarray) -> np.ndarray:
    """The column as text, object (N,): whole numbers without a decimal point, None for missing values."""
    if not is_numeric(column):
        return column
    texts = [None if not math.isfinite(value) else f"{value:.17g}" for value in column.tolist()]
    return np.array(texts, object)


def no_column(name: str, use: str, names: Collection[str]) -> str:
    """The end of a message on a name that no column has: the nearest and the existing columns.

    Args:
        names: the columns; parts of dates, which are none of the file's, are not shown.
    """
    own = [each for each in names if each.rpartition(" (")[0] not in names]
    nearest = difflib.get_close_matches(name, own, n=1)
    listed = ", ".join(own[:12]) + (f" and {len(own) - 12} more" if len(own) > 12 else "")
    found = f"did you mean {nearest[0]!r}? It has {listed}" if nearest else f"it has {listed}"
    if len(own) == 1:  # often a whole line, separated by another character
        found = f"its only column is {own[0][:60]!r}, so {advise_delimiter(own[0])}"
    return f"no column {name!r} {use}: {found}"


def likely_delimiter(line: str) -> str:
    """The character that seems to separate the columns in a line, as messages write it: "';'", "tab"; "" if none."""
    sign = max(";\t|,", key=line.count)
    return "" if sign not in line else "tab" if sign == "\t" else repr(sign)


def advise_delimiter(line: str) -> str:
    """What to do about a file to learn from whose first line, `line`, was not separated into columns."""
    sign = likely_delimiter(line)
    if sign == "','":  # the default, which means a tab in a .tsv file
        return "leave data.columns.delimiter out and call the file .csv"
    return f"set data.columns.delimiter={sign}" if sign else "check data.columns.delimiter"
