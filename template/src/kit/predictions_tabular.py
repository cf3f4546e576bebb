"""Predictions for the rows of CSV and Parquet files."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from src.kit.config import UserError
from src.kit.inference import Card
from src.kit.predictions import Results as ClassResults
from src.kit.predictions import Source, rounded
from src.kit.report import section, table
from src.kit.storage import replace_file
from src.kit.tabular import PARQUET, Preprocessing, from_json, read_table

__all__ = ["ALL_AT_ONCE", "Results", "find_sources"]

ALL_AT_ONCE = True  # a message about a value then names the row of the file


def find_sources(paths: Sequence[str], options: argparse.Namespace, card: Card) -> Iterator[Source]:
    """The rows of tables, named FILE#ROW from 1; their target column, if there is one, is not used.

    Raises:
        UserError: a file that cannot be read, or lacks a column that the network was trained on.
    """
    fitted = from_json(card.input["columns"])
    tables = [(path, read_columns(Path(path).expanduser(), card, fitted)) for path in paths]
    for path, columns in tables:
        for row in range(len(next(iter(columns.values())))):
            yield Source(f"{path}#{row + 1}", partial(pick, columns, row))


def read_columns(path: Path, card: Card, fitted: Preprocessing) -> dict[str, Sequence[Any]]:
    """The columns of a file that the network needs; raises as `find_sources`."""
    if not path.is_file():
        raise UserError(f"{path} is not a file: name CSV or Parquet files.")
    decimal = "comma" if any(form.style == "," for form in fitted.forms.values()) else "auto"
    texts = [name for name in card.input["categories"] if name in fitted.sources]
    found = read_table(path, card.input["delimiter"], (), texts, decimal, fitted.sources)
    return {name: plain(found.columns[name]) for name in fitted.sources}


def pick(columns: Mapping[str, Sequence[Any]], row: int) -> dict[str, Any]:
    """One row of the columns."""
    return {name: values[row] for name, values in columns.items()}


def plain(column: np.ndarray) -> Sequence[Any]:
    """A column's values, None where one is missing."""
    if column.dtype.kind == "f":
        return [value if np.isfinite(value) else None for value in column.tolist()]
    return column.tolist() if column.dtype.kind == "O" else [None if np.isnat(each) else each for each in column]


class Results(ClassResults):
    """The rows' classes or numbers."""

    columns: ClassVar[tuple[str, ...]] = ("file", "row", "class", "score")

    def __enter__(self) -> "Results":
        if self.card.output["kind"] == "number":
            self.columns = ("file", "row", "value")  # type: ignore[misc]
        super().__enter__()
        return self

    def add(self, name: str, item: Any, prediction: dict[str, Any]) -> None:
        """Record the prediction for one row."""
        file, _, row = name.rpartition("#")
        self.records.append({"file": file, "row": int(row), **prediction})
        kept = {key: rounded(value) for key, value in prediction.items() if key in self.columns}
        self.rows.writerow({"file": file, "row": row, **kept})
        self.counts[prediction.get("class", "numbers")] += 1

    def write(self) -> None:
        """Write predictions.json and index.html, and predictions.parquet if rows of a Parquet file were predicted."""
        super().write()
        if not any(each["file"].lower().endswith(PARQUET) for each in self.records):
            return
        import pyarrow  # takes 0.3 s
        from pyarrow import parquet

        found = pyarrow.table({name: [each[name] for each in self.records] for name in self.columns})
        with replace_file(self.folder / "predictions.parquet") as partial:
            parquet.write_table(found, partial)

    def gallery(self) -> str:
        """The first rows."""
        shown = [{key: each[key] for key in self.columns} for each in self.records[:200]]
        return section(f"The first {len(shown)} rows", table(shown))
