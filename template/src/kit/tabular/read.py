"""Read a CSV or Parquet file."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.kit.config import UserError
from src.kit.tabular.table import Table, to_text

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
        delimiter: what separates a CSV file's columns, as `separator` says.
        drop: columns that are left out.
        categories: columns that stay text, whatever they hold: "01" and "1" remain two categories.

    Raises:
        UserError: no such file, another format, no rows, a name used twice, a column of a type that is no table's,
            text that is not UTF-8, an unknown name in `drop` or `categories`, or a delimiter that is none.
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
    return Table({name: convert(found.column(name), name in categories, path, name) for name in kept})


def separator(delimiter: str, path: Path) -> str:
    """The character that separates a CSV file's columns: "tab" and a backslash with a t stand for a tab.

    In a .tsv file the comma, which is the default, is a tab too.

    Raises:
        UserError: it is not one ASCII character, or it ends a line.
    """
    if delimiter in ("tab", "\\t") or (delimiter == "," and path.suffix.lower() == ".tsv"):
        return "\t"
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\r\n":
        raise UserError(f"data.columns.delimiter={delimiter!r} must be one ASCII character, such as ';', or tab.")
    return delimiter


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
            parse = csv.ParseOptions(delimiter=separator(delimiter, path))
            found = csv.read_csv(path, parse_options=parse, convert_options=nulls)
            list(found.column_names)  # decodes them: Arrow itself does not mind a header that is not UTF-8
            return found
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        undecoded = isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason
        mend = "save it as UTF-8" if undecoded else "check the file and data.columns.delimiter"
        raise UserError(f"{path} cannot be read as a table ({reason}): {mend}.") from error
    raise UserError(f"{path} is neither CSV ({', '.join(CSV)}) nor Parquet ({', '.join(PARQUET)}).")


def convert(column: Any, as_text: bool, path: Path, name: str) -> np.ndarray:
    """One of Arrow's columns as a `Table` keeps it; `path` and `name` are for messages."""
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
        if types.is_binary(kind) and path.name.lower().endswith(CSV):  # what Arrow makes of any text but UTF-8
            raise UserError(f"{path}: {name!r} holds text that is not UTF-8: save the file as UTF-8.")
        raise UserError(
            f"{path}: {name!r} holds {kind}, neither numbers nor text: leave it out with data.columns.drop."
        )
    numbers = np.array(column.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64) / unit
    return to_text(numbers) if as_text else numbers


def shown(names: Collection[str]) -> str:
    """The columns there are, as the end of a message."""
    if len(names) == 1:  # often a whole line, whose columns another character separates
        return f"its only column is {next(iter(names))[:60]!r}, so check data.columns.delimiter"
    listed = ", ".join(list(names)[:12])
    return f"it has {listed}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
