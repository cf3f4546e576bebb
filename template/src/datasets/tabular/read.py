"""Read a CSV or Parquet file."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.datasets.tabular.table import Table, to_text
from src.utils.errors import UserError

if TYPE_CHECKING:
    import pyarrow

CSV = (".csv", ".csv.gz", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")  # what stands for no value in CSV
DAY = 86_400_000_000  # microseconds


def read_table(path: Path, delimiter: str = ",", drop: Collection[str] = (), categories: Collection[str] = ()) -> Table:
    """Read a whole file.

    Integers, truth values (0 and 1), dates (days since 1970) and times (parts of a day) become numbers. The texts of
    `MISSING` are missing values, and blanks around a value are left out.

    Args:
        delimiter: what separates a CSV file's columns.
        drop: columns that are left out.
        categories: columns that stay text, whatever they hold: "01" and "1" remain two categories.

    Raises:
        UserError: no such file, another format, no rows, a name used twice, a column of a type that is no table's, or
            an unknown name in `drop` or `categories`.
    """
    if not path.is_file():
        raise UserError(f"data.root={path} is no file: give the path of a CSV or Parquet file.")
    found = read_file(path, delimiter, categories)
    names = found.column_names
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has several columns called {', '.join(twice)}: give every column a name of its own.")
    for name in [*drop, *categories]:
        if name not in names:
            raise UserError(f"{path} has no column {name!r} to drop or to take for categories: {shown(names)}.")
    kept = [name for name in names if name not in drop]
    if not kept or found.num_rows == 0:
        raise UserError(f"{path} has {found.num_rows} rows and {len(kept)} columns: there is nothing to learn from.")
    return Table({name: convert(found.column(name), name in categories, f"{path}: {name!r}") for name in kept})


def read_file(path: Path, delimiter: str, categories: Collection[str]) -> "pyarrow.Table":
    """The file as Arrow sees it."""
    import pyarrow  # 0.3 s with what it brings: only for those who read a file
    from pyarrow import csv, parquet

    try:
        if path.name.lower().endswith(PARQUET):
            return parquet.read_table(path)
        if path.name.lower().endswith(CSV):
            types = dict.fromkeys(categories, pyarrow.string())
            nulls = csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True, column_types=types)
            return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=delimiter), convert_options=nulls)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"{path} cannot be read as a table ({reason}): check the file and data.columns.delimiter."
        ) from error
    raise UserError(f"{path} is neither CSV ({', '.join(CSV)}) nor Parquet ({', '.join(PARQUET)}).")


def convert(column: Any, as_text: bool, where: str) -> np.ndarray:
    """One of Arrow's columns as a `Table` keeps it."""
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
        raise UserError(f"{where} holds {kind}, neither numbers nor text: leave it out with data.columns.drop.")
    numbers = np.array(column.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64) / unit
    return to_text(numbers) if as_text else numbers


def shown(names: Collection[str]) -> str:
    """The columns there are, as the end of a message."""
    listed = ", ".join(list(names)[:12])
    return f"it has {listed}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
