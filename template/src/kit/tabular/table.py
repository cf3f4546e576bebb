"""A table in memory, read from a CSV or Parquet file."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.kit.config import UserError

if TYPE_CHECKING:
    import pyarrow

MOSTLY = 0.9  # a text column with a larger share of numbers was meant to hold numbers
CSV = (".csv", ".csv.gz", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")  # missing values in CSV files
DAY = 86_400_000_000  # microseconds


@dataclass(frozen=True)
class Table:
    """Columns by name, all of one length: float64 with NaN for missing values, or object with str and None."""

    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        assert self.columns, "a table has columns"
        assert len({len(column) for column in self.columns.values()}) == 1
        assert all(column.dtype.kind in "fO" for column in self.columns.values())

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
    return np.array([value is None for value in column], bool)


def to_text(column: np.ndarray) -> np.ndarray:
    """The column as text, object (N,): whole numbers without a decimal point, None for missing values."""
    if not is_numeric(column):
        return column
    texts = [None if not math.isfinite(value) else f"{value:.17g}" for value in column.tolist()]
    return np.array(texts, object)


def number_or_none(text: str) -> float | None:
    """Parse a number; None if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return None


def stray_text(column: np.ndarray) -> tuple[int, str] | None:
    """Row and value of the first text in a column that otherwise holds numbers; None for any other column."""
    if is_numeric(column):
        return None
    known = [(row, value) for row, value in enumerate(column) if value is not None]
    strays = [(row, value) for row, value in known if number_or_none(value) is None]
    return strays[0] if strays and len(strays) <= (1 - MOSTLY) * len(known) else None


def refuse_strays(table: Table, allowed: Collection[str]) -> None:
    """Refuse columns of numbers with a few texts among them, such as typos or marks for missing values.

    Columns in `allowed` are categories, whatever they look like.

    Raises:
        UserError: names the column, the row and the text.
    """
    for name, column in table.columns.items():
        if name not in allowed and (stray := stray_text(column)):
            raise UserError(
                f"The column {name!r} holds numbers, but row {stray[0] + 1} has {stray[1]!r}: fix it, leave it empty, "
                "or list the column in data.columns.categories."
            )


def read_table(path: Path, delimiter: str = ",", drop: Collection[str] = (), categories: Collection[str] = ()) -> Table:
    """Read a CSV or Parquet file.

    Integers, booleans (0 and 1), dates (days since 1970) and times (fractions of a day) become numbers. The texts in
    `MISSING` are missing values. Blanks around a value are stripped.

    Args:
        delimiter: separates a CSV file's columns, see `separator`.
        drop: columns to leave out.
        categories: columns to keep as text, so that "01" and "1" are two categories.

    Raises:
        UserError: no such file, another format, no rows, duplicate column names, a column that is neither numbers nor
            text, text that is not UTF-8, an unknown name in `drop` or `categories`, or an invalid delimiter.
    """
    if not path.is_file():
        raise UserError(f"data.root={path} is not a file: give the path of a CSV or Parquet file.")
    found = read_file(path, delimiter, categories)
    names = found.column_names
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has several columns called {', '.join(twice)}: give each a different name.")
    for name in [*drop, *categories]:
        if name not in names:
            raise UserError(f"{path} has no column {name!r} to drop or to read as categories: {list_columns(names)}.")
    kept = [name for name in names if name not in drop]
    if not kept or found.num_rows == 0:
        raise UserError(f"{path} has {found.num_rows} rows and {len(kept)} columns: there is nothing to learn from.")
    return Table({name: convert(found.column(name), name in categories, path, name) for name in kept})


def separator(delimiter: str, path: Path) -> str:
    """The character that separates a CSV file's columns; "tab" and the two letters \\t mean a tab.

    In a .tsv file, the default (a comma) means a tab too.

    Raises:
        UserError: it is not one ASCII character, or a line break.
    """
    if delimiter in ("tab", "\\t") or (delimiter == "," and path.suffix.lower() == ".tsv"):
        return "\t"
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\r\n":
        raise UserError(f"data.columns.delimiter={delimiter!r} must be one ASCII character, such as ';', or tab.")
    return delimiter


def read_file(path: Path, delimiter: str, categories: Collection[str]) -> "pyarrow.Table":
    """Read the file with Arrow."""
    import pyarrow  # takes 0.3 s: only if a file is read
    from pyarrow import csv, parquet

    try:
        if path.name.lower().endswith(PARQUET):
            return parquet.read_table(path)
        if path.name.lower().endswith(CSV):
            types = dict.fromkeys(categories, pyarrow.string())
            nulls = csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True, column_types=types)
            parse = csv.ParseOptions(delimiter=separator(delimiter, path))
            found = csv.read_csv(path, parse_options=parse, convert_options=nulls)
            list(found.column_names)  # decodes them: Arrow itself accepts a header that is not UTF-8
            return found
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        undecoded = isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason
        advice = "save it as UTF-8" if undecoded else "check the file and data.columns.delimiter"
        raise UserError(f"{path} can't be read as a table ({reason}): {advice}.") from error
    raise UserError(f"{path} is neither CSV ({', '.join(CSV)}) nor Parquet ({', '.join(PARQUET)}).")


def convert(column: Any, as_text: bool, path: Path, name: str) -> np.ndarray:
    """Convert one of Arrow's columns to a column of `Table`; `path` and `name` are for messages."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_string(kind) or types.is_large_string(kind):
        texts = [None if value is None else str(value).strip() for value in column.to_pylist()]
        return np.array([None if value in MISSING else value for value in texts], object)
    unit = 1
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        moment = pyarrow.time64("us") if types.is_time(kind) else pyarrow.timestamp("us")
        column, unit = column.cast(moment, safe=False).cast(pyarrow.int64()), DAY
    elif types.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)):
        if types.is_binary(kind) and path.name.lower().endswith(CSV):  # Arrow's type for text that is not UTF-8
            raise UserError(f"{path}: {name!r} holds text that is not UTF-8: save the file as UTF-8.")
        raise UserError(
            f"{path}: {name!r} holds {kind}, neither numbers nor text: leave it out with data.columns.drop."
        )
    numbers = np.array(column.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64) / unit
    return to_text(numbers) if as_text else numbers


def list_columns(names: Collection[str]) -> str:
    """The existing columns, as the end of a message."""
    if len(names) == 1:  # often a whole line, separated by another character
        return f"its only column is {next(iter(names))[:60]!r}, so check data.columns.delimiter"
    listed = ", ".join(list(names)[:12])
    return f"it has {listed}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
