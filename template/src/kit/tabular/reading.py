"""Read a CSV or Parquet file as a table."""

import gzip
import zlib
from collections import Counter
from collections.abc import Collection
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.kit.errors import UserError
from src.kit.tabular.forms import has_decimal_comma
from src.kit.tabular.table import Table, advise_delimiter, likely_delimiter, no_column, to_text

if TYPE_CHECKING:
    import pyarrow

CSV = (".csv", ".csv.gz", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")
MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")  # missing values in CSV files
DAY = 86_400_000_000  # microseconds
BLOCK = 16 << 20  # bytes read at once: a row, with its line breaks, may be as long


def read_table(
    path: Path,
    delimiter: str = ",",
    drop: Collection[str] = (),
    categories: Collection[str] = (),
    decimal: str = "auto",
    needed: Collection[str] = (),
) -> Table:
    """Read a CSV or Parquet file.

    Integers, booleans (0 and 1) and times (fractions of a day) become numbers; dates and texts stay what they are, see
    `recognise`. The texts in `MISSING` are missing values. Blanks around a value or a column's name are stripped.

    Args:
        delimiter: separates a CSV file's columns, see `separator`.
        drop: columns to leave out.
        categories: columns to keep as text, so that "01" and "1" are two categories.
        decimal: "comma" keeps 8.000 as text, which may be eight thousand; "auto" does so if any column has decimal
            commas.
        needed: columns that a network was trained on, which is to predict the rows.

    Raises:
        UserError: no such file, another format, no rows, duplicate column names, a column that is neither numbers nor
            text, text that is not UTF-8 or UTF-16, an unknown name in `drop` or `categories`, a column of `needed` that
            is missing, or an invalid delimiter.
    """
    if not path.is_file():
        raise UserError(f"data.root={path} is not a file: give the path of a CSV or Parquet file.")
    found = read_file(path, delimiter, categories, bool(needed))
    names = found.column_names
    if twice := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has several columns called {', '.join(twice)}: give each a different name.")
    if absent := [repr(name) for name in needed if name not in names]:
        if len(names) == 1 and path.name.lower().endswith(CSV):
            refuse_delimiter(path, delimiter, names[0])
        raise UserError(f"{path} lacks columns that the network was trained on: {', '.join(absent)}.")
    for name in [*drop, *categories]:
        if name not in names:
            raise UserError(f"{path} has {no_column(name, 'to drop or to read as categories', names)}.")
    kept = [name for name in names if name not in drop]
    if not kept or found.num_rows == 0:
        use = "to predict" if needed else "to learn from"
        raise UserError(f"{path} has {found.num_rows} rows and {len(kept)} columns: there is nothing {use}.")
    table = Table({name: convert(found.column(name), name in categories, path, name) for name in kept})
    points = [name for name in kept if str(found.column(name).type) == "double"]
    commas = decimal == "comma" or (decimal == "auto" and has_decimal_comma(table, categories))
    if not (points and commas and path.name.lower().endswith(CSV)):
        return table
    again = read_file(path, delimiter, [*categories, *points])
    texts = {name: convert(again.column(name), True, path, name) for name in points}
    return Table({name: texts.get(name, column) for name, column in table.columns.items()})


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


def refuse_delimiter(path: Path, delimiter: str, line: str) -> None:
    """Refuse a file to predict in whose first line another character than in training separates the columns."""
    sign = separator(delimiter, path)
    if sign not in line and (found := likely_delimiter(line)):
        own = "tab" if sign == "\t" else repr(sign)
        raise UserError(
            f"{path} seems to have {found} between its columns, not {own} as in training: save it with {own}."
        )


def read_file(path: Path, delimiter: str, texts: Collection[str], predict: bool = False) -> "pyarrow.Table":
    """Read the file with Arrow; `texts` are columns of a CSV file to read as text, `predict` is for messages."""
    import pyarrow  # takes 0.3 s: only if a file is read
    from pyarrow import parquet

    try:
        if path.name.lower().endswith(PARQUET):
            found = parquet.read_table(path)
        elif path.name.lower().endswith(CSV):
            found = read_csv(path, delimiter, texts)
            padded = [name for name in found.column_names if name.strip() in texts and name not in texts]
            found = read_csv(path, delimiter, [*texts, *padded]) if padded else found
        else:
            raise UserError(f"{path} is neither CSV ({', '.join(CSV)}) nor Parquet ({', '.join(PARQUET)}).")
        return found.rename_columns([name.strip() for name in found.column_names])
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        advice = "check the file and data.columns.delimiter"
        if isinstance(error, UnicodeError) or "invalid UTF8" in reason:
            advice = "save it as UTF-8"
        elif reason.startswith("CSV parse error") and separator(delimiter, path) not in (line := first_line(path)):
            if predict:
                refuse_delimiter(path, delimiter, line)
            advice = advise_delimiter(line)
        raise UserError(f"{path} can't be read as a table ({reason}): {advice}.") from error


def read_csv(path: Path, delimiter: str, texts: Collection[str]) -> "pyarrow.Table":
    """Read a CSV file, whose values may have line breaks between quotation marks."""
    import pyarrow
    from pyarrow import csv

    types = dict.fromkeys(texts, pyarrow.string())
    return csv.read_csv(
        path,
        csv.ReadOptions(block_size=BLOCK, encoding=encoding(path)),
        csv.ParseOptions(delimiter=separator(delimiter, path), newlines_in_values=True),
        csv.ConvertOptions(null_values=list(MISSING), strings_can_be_null=True, column_types=types),
    )


def first_line(path: Path) -> str:
    """The names of a CSV file's columns."""
    with open_bytes(path) as file:
        return file.readline(BLOCK).decode(encoding(path), "replace").rstrip("\r\n")


def encoding(path: Path) -> str:
    """Encoding of a CSV file, from its first bytes: UTF-8, or UTF-16 as Excel's "Unicode text" has it."""
    with open_bytes(path) as file:
        start = file.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return {b"\0": "utf-16-be"}.get(start[:1], "utf-16-le" if start[1:2] == b"\0" else "utf-8")


def open_bytes(path: Path) -> BufferedIOBase:
    """Open a file, unpacked if it is a .gz."""
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


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
    if types.is_timestamp(kind) or types.is_date(kind):
        moments = column.cast(pyarrow.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
        return dates_to_text(moments) if as_text else moments
    if types.is_time(kind):
        column, unit = column.cast(pyarrow.time64("us"), safe=False).cast(pyarrow.int64()), DAY
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


def dates_to_text(moments: np.ndarray) -> np.ndarray:
    """datetime64 (N,) as ISO dates, object (N,) with None for missing ones."""
    return np.array([None if value == "NaT" else value for value in np.datetime_as_string(moments).tolist()], object)
