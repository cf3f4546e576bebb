"""What turns a table's rows into a network's input: fitted on the training rows, saved with the weights as JSON."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np

from src.kit.config import UserError
from src.kit.tabular.table import Table, is_missing, is_numeric, number_or_none, to_text

MOST_CATEGORIES = 1000  # of one column; the rarer ones are treated as unknown
UNKNOWN = 0  # the code of a category that the training rows lack


@dataclass(frozen=True)
class Number:
    """A column of numbers: `(value - mean) / scale`, with `fill`, the median, for what is missing."""

    name: str
    fill: float
    mean: float
    scale: float


@dataclass(frozen=True)
class Category:
    """A column of categories: code i + 1 is `values[i]`; None among them is the code of what is missing."""

    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Preprocessing:
    """Rows of a table -> float32 (N, F): first the numbers, scaled, then the codes of the categories.

    A missing number is taken for the training rows' median. A missing category is a category of its own where the
    training rows lack some values, too; otherwise it is unknown, like any value that they never had: code 0, whose
    embedding is the zero vector.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    target: str
    target_mean: float = 0.0
    target_scale: float = 1.0

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """How many codes each column of categories has, with that of the unknown."""
        return tuple(len(column.values) + 1 for column in self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in the order of the network's input."""
        return (*(column.name for column in self.numbers), *(column.name for column in self.categories))

    def transform(self, table: Table) -> np.ndarray:
        """float32 (N, F) of any rows; columns that the training did not use are ignored.

        Raises:
            UserError: a column is missing, or holds text where numbers were trained on.
        """
        if absent := [repr(name) for name in self.names if name not in table.columns]:
            raise UserError(f"The table lacks columns that the network was trained on: {', '.join(absent)}.")
        result = np.empty((len(table), len(self.names)), np.float32)
        for place, number in enumerate(self.numbers):
            values = numeric(table.columns[number.name], number.name)
            filled = np.where(np.isfinite(values), values, number.fill)
            result[:, place] = (filled - number.mean) / number.scale
        for place, category in enumerate(self.categories, len(self.numbers)):
            codes = {value: code for code, value in enumerate(category.values, 1)}
            result[:, place] = [codes.get(value, UNKNOWN) for value in to_text(table.columns[category.name])]
        return result

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (N,) of a regression in the target's own unit, float64."""
        return outputs.astype(np.float64) * self.target_scale + self.target_mean

    def select(self, names: Collection[str]) -> "Preprocessing":
        """The same with these columns only."""
        numbers = tuple(column for column in self.numbers if column.name in names)
        categories = tuple(column for column in self.categories if column.name in names)
        return Preprocessing(numbers, categories, self.target, self.target_mean, self.target_scale)

    def to_json(self) -> str:
        """Everything, so that `from_json` gives the same arrays to the last bit."""
        return json.dumps(asdict(self), ensure_ascii=False)


def from_json(text: str) -> Preprocessing:
    """Undo `Preprocessing.to_json`."""
    kept = json.loads(text)
    numbers = tuple(Number(**column) for column in kept.pop("numbers"))
    categories = tuple(Category(column["name"], tuple(column["values"])) for column in kept.pop("categories"))
    return Preprocessing(numbers, categories, **kept)


def fit(table: Table, target: str, target_mean: float = 0.0, target_scale: float = 1.0) -> Preprocessing:
    """Learn medians, scales and categories from the training rows (without the target).

    Raises:
        UserError: a column without any value.
    """
    numbers: list[Number] = []
    categories: list[Category] = []
    for name, column in table.columns.items():
        if is_missing(column).all():
            raise UserError(f"The column {name!r} has no value in the training rows: list it in data.columns.drop.")
        if is_numeric(column):
            known = column[np.isfinite(column)]
            fill = float(np.median(known))
            filled = np.where(np.isfinite(column), column, fill)
            numbers.append(Number(name, fill, float(filled.mean()), float(filled.std()) or 1.0))
        else:
            categories.append(Category(name, frequent(column)))
    return Preprocessing(tuple(numbers), tuple(categories), target, target_mean, target_scale)


def frequent(column: np.ndarray) -> tuple[str | None, ...]:
    """The most frequent values in alphabetical order, then None where some are missing."""
    counts: Counter[str] = Counter(value for value in column if value is not None)
    missing = (None,) if counts.total() < len(column) else ()
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return (*sorted(ordered[:MOST_CATEGORIES]), *missing)


def numeric(column: np.ndarray, name: str) -> np.ndarray:
    """The column as float64 with NaN for what is missing."""
    if is_numeric(column):
        return column
    values = [np.nan if text is None else number_or_none(text) for text in column]
    if None in values:
        row = values.index(None)
        raise UserError(f"The column {name!r} must hold numbers, but row {row + 1} has {column[row]!r}.")
    return np.array(values, np.float64)
