"""A table's rows, without a framework: encoded for the network, and its outputs as classes or a number.

`input` of the card: shape [F]; columns, the `Preprocessing` as JSON; delimiter and categories, as files are read.
`output`: kind "classes", or "number" with the mean and the scale that its unit is restored with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference import Batch, Card, Size, describe_class, softmax
from src.kit.tabular import Table, from_json, to_text

__all__ = ["decode", "describe", "example", "features", "fuse", "prepare", "read"]


def read(card: Card, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check one row: column -> number, text, or None for a missing value.

    Raises:
        UserError: it is not such a mapping.
    """
    if not isinstance(source, Mapping):
        raise UserError(f"A row maps columns to values, such as {{'age': 41}}; this is {type(source).__name__}.")
    return source


def prepare(card: Card, items: Sequence[Mapping[str, Any]]) -> Batch:
    """Encode rows as the training rows were: float32 (B, F). Numbers and dates may be texts, written as in training.

    Raises:
        UserError: a row lacks a column, or a column of numbers has text.
    """
    fitted = from_json(card.input["columns"])
    for number, row in enumerate(items, 1):
        if absent := [repr(name) for name in fitted.sources if name not in row]:
            raise UserError(f"Row {number} lacks columns that the network was trained on: {', '.join(absent)}.")
    typed = [name for name, form in fitted.forms.items() if form.style == "typed"]
    columns = {}
    for name in fitted.sources:
        values = [row[name] for row in items]
        columns[name] = to_dates(values, name) if name in typed else to_column(values)
    table = Table(columns)
    return Batch(fitted.transform(table), [(1, 1)] * len(items))


def to_column(values: Sequence[Any]) -> np.ndarray:
    """A column of `Table`: float64 if all values are numbers or missing, else object with texts."""
    if all(value is None or isinstance(value, int | float | np.number) for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value if value is None or isinstance(value, str) else to_text(np.array([float(value)]))[0]
    return column


def to_dates(values: Sequence[Any], name: str) -> np.ndarray:
    """A column of dates, or of texts such as "2026-01-31": datetime64[us].

    Raises:
        UserError: a value that is neither.
    """
    try:
        return np.array(values, "datetime64[us]")
    except (ValueError, TypeError) as error:
        raise UserError(f"The column {name!r} must hold dates such as 2026-01-31 ({error}).") from error


def decode(card: Card, outputs: np.ndarray, sizes: Sequence[Size]) -> list[np.ndarray]:
    """Logits (B, K) -> the probabilities of each row, (K,); or (B, 1) -> a number in the target's unit, (1,)."""
    if card.output["kind"] == "classes":
        return list(softmax(outputs))
    if card.output.get("transform", "none") != "none":
        return list(from_json(card.input["columns"]).decode(outputs))
    return list(outputs.astype(np.float64) * card.output["scale"] + card.output["mean"])


def fuse(card: Card, results: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several results for one row."""
    mean: np.ndarray = np.mean(results, axis=0)
    return mean


def describe(card: Card, result: np.ndarray, size: Size) -> dict[str, Any]:
    """{"class", "score", "scores"} as for images of one class, or {"value"}, the predicted number."""
    return {"value": float(result[0])} if card.output["kind"] == "number" else describe_class(card, result, size)


def features(card: Card, batch: Batch) -> dict[str, np.ndarray]:
    """The columns, as the network takes them."""
    return dict(zip(from_json(card.input["columns"]).names, batch.arrays.T, strict=True))


def example(card: Card) -> dict[str, Any]:
    """A row to begin with: medians, and each category's first value; None in columns that hold something else."""
    fitted = from_json(card.input["columns"])
    values: dict[str, Any] = {column.name: column.fill for column in fitted.numbers}
    values |= {column.name: next(iter(column.values), None) for column in fitted.categories}
    return {name: values.get(name) for name in fitted.sources}
