"""Forms of columns: how the numbers and dates in them are written, which is recognised from all of its values.

`recognise` finds the forms of a table's columns, `interpret` reads the columns by them. The forms are part of a run's
preprocessing, so that another table is read as the training table was.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from src.kit.errors import UserError
from src.kit.tabular.table import Table, is_missing, is_numeric
from src.kit.tabular.written import LAYOUTS, MARKS, read_date, read_number, time_of_day

MOSTLY = 0.9  # a text column with a larger share of numbers or dates was meant to hold them
DISTINCT = 10  # whole numbers such as 20120131 are dates if there are so many different ones, all of them valid
FEW = 500  # values of a column that are tried first
KEPT = 1 << 18  # values whose meaning is kept: columns are read more than once
NOTHING = ("-", "--", "–", "—", ".")  # missing values among numbers and dates
PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of datetime64[us] (N,) without NaT
    "year": lambda moments: moments.astype("datetime64[Y]").astype(np.int64) + 1970,
    "month": lambda moments: moments.astype("datetime64[M]").astype(np.int64) % 12 + 1,
    "weekday": lambda moments: (moments.astype("datetime64[D]").astype(np.int64) + 3) % 7,  # Monday is 0
    "hour": lambda moments: moments.astype("datetime64[h]").astype(np.int64) % 24,
}
ORDERS = {"day/month": "day_first", "month/day": "month_first"}  # style -> value of data.columns.dates


@dataclass(frozen=True)
class Form:
    """How a column is read.

    Attributes:
        kind: what it holds.
        style: the decimal mark of numbers; the layout of dates, a key of `LAYOUTS`, or "typed" if the file says so.
        parts: further columns that a date gives, of "year", "month", "weekday" and "hour".
    """

    kind: Literal["number", "date", "time"]
    style: str
    parts: tuple[str, ...] = ()


class Recognised(NamedTuple):
    """The forms of a table's columns; what was recognised, and what is doubtful, as pairs (column, sentence)."""

    forms: dict[str, Form]
    notes: list[tuple[str, str]]
    doubts: list[tuple[str, str]]


@lru_cache(KEPT)
def read_value(text: str, form: Form) -> Any:
    """A float, a datetime, or None if the text has another form."""
    if form.kind == "time":
        return time_of_day(text)
    if form.kind == "date":
        return read_date(text, form.style) if form.style != "typed" else read_date(text, "year-month-day")
    found = read_number(text, form.style)
    return None if found is None else found[0]


def first_stray(column: np.ndarray, form: Form) -> tuple[int, str] | None:
    """Row and value of the first text that `form` cannot read; None if there is none."""
    if column.dtype.kind != "O":
        return None
    strays = {text for text in known_texts(column) if read_value(text, form) is None}
    return next(((row, text) for row, text in enumerate(column) if text in strays), None) if strays else None


def known_texts(column: np.ndarray) -> Counter[str]:
    """How often each text occurs, without those that mean a missing value."""
    return Counter(text for text in column.tolist() if text is not None and text not in NOTHING)


def share(texts: Counter[str], read: Callable[[str], Any]) -> float:
    """Share of the values that `read` can read."""
    return sum(count for text, count in texts.items() if read(text) is not None) / max(texts.total(), 1)


def likely(texts: Counter[str]) -> Counter[str]:
    """The most frequent texts: most columns hold neither numbers nor dates, and a few values tell."""
    return Counter(dict(texts.most_common(FEW)))


def number_marks(texts: Counter[str]) -> list[str]:
    """The decimal marks by which (nearly) all texts are numbers: none, one, or two that give different numbers."""
    few = likely(texts)
    marks = best_styles({mark: share(few, partial(read_number, mark=mark)) for mark in MARKS})
    if marks and len(few) < len(texts):
        marks = best_styles({mark: share(texts, partial(read_number, mark=mark)) for mark in marks})
    return marks if len(marks) < 2 or any(map(tells_marks, texts)) else marks[:1]


def best_styles(shares: Mapping[str, float]) -> list[str]:
    """The styles that read most values, if that is more than `MOSTLY`."""
    best = max(shares.values(), default=0.0)
    return [style for style in shares if shares[style] == best > MOSTLY]


def has_decimal_comma(table: Table, categories: Collection[str]) -> bool:
    """Whether some column certainly has decimal commas: then 8.000 may be eight thousand."""
    columns = [column for name, column in table.columns.items() if column.dtype.kind == "O" and name not in categories]
    return any(number_marks(known_texts(column)) == [","] for column in columns)


def recognise(table: Table, columns: Mapping[str, Any], target: str = "", parts: bool = True) -> Recognised:
    """Find the form of each column that is not plain numbers or categories.

    A column that can be read in two ways is read like the others of the table, or as `columns["decimal"]` and
    `columns["dates"]` say; where nothing tells, the likelier reading is taken, and a doubt names the key.

    Args:
        columns: the keys of `data.columns`.
        target: its date gives no further columns; it is left as it is without a name.
        parts: whether dates give year, month, weekday and hour.
    """
    result = Recognised({}, [], [])
    categories = columns.get("categories") or ()
    texts = {
        name: known_texts(column)
        for name, column in table.columns.items()
        if column.dtype.kind == "O" and name not in categories
    }
    marks = {name: found for name, known in texts.items() if known and (found := number_marks(known))}
    mark = choose(columns.get("decimal", "auto"), MARKS, certain_marks(table, marks, texts))
    for name, found in marks.items():
        add_number(result, name, texts[name], found, mark, str(columns.get("delimiter", ",")))
    layouts = {name: found for name in texts if name not in marks and (found := date_layouts(texts[name]))}
    order = choose(columns.get("dates", "auto"), ORDERS, {style[0] for style in layouts.values() if len(style) == 1})
    for name, styles in layouts.items():
        add_date(result, name, texts[name], styles, order)
    for name, column in table.columns.items():
        if column.dtype.kind == "M" or (name not in categories and is_compact(interpret_column(column, name, result))):
            style = "typed" if column.dtype.kind == "M" else "yyyymmdd"
            result.forms[name] = Form("date", style)
            if style != "typed":
                result.notes.append((name, f"{name!r} holds dates ({style})"))
    for name, form in result.forms.items():
        if parts and form.kind == "date" and name != target and not first_stray(table.columns[name], form):
            moments = read_dates(table.columns[name], name, form)
            known = moments[~np.isnat(moments)]
            kept = tuple(part for part, extract in PARTS.items() if len(np.unique(extract(known))) > 1)
            result.forms[name] = Form("date", form.style, kept)
    return result


def certain_marks(table: Table, marks: Mapping[str, list[str]], texts: Mapping[str, Counter[str]]) -> set[str]:
    """The decimal marks that the table certainly uses."""
    only = {name: styles[0] for name, styles in marks.items() if len(styles) == 1}
    found = {mark for name, mark in only.items() if any(map(tells_marks, texts[name]))}
    plain = [column[np.isfinite(column)] for column in table.columns.values() if is_numeric(column)]
    return found | {"." for values in plain if (values != np.floor(values)).any()}


def tells_marks(text: str) -> bool:
    """Whether a number means something else with a decimal comma than with a decimal point."""
    return read_number(text, ".") != read_number(text, ",")


def choose(key: str, keys: Mapping[str, str], found: Collection[str]) -> str:
    """The style that a key names, or the only one that the table certainly uses; else ""."""
    named = [style for style, value in keys.items() if value == key]
    known = named or [style for style in keys if style in found]
    return known[0] if len(known) == 1 else ""


def add_number(result: Recognised, name: str, texts: Counter[str], marks: list[str], mark: str, delimiter: str) -> None:
    """Enter a column of numbers, unless it holds several currencies."""
    found = marks[0] if len(marks) == 1 else mark or ("," if delimiter == ";" else ".")
    read = [number for text in texts if (number := read_number(text, found))]
    units = sorted({unit for _, unit in read if unit})
    if len(units) > 1:
        listed = " and ".join(units[:3])
        sentence = f"{name!r} holds numbers in {listed} and is read as categories: convert them to one unit"
        result.doubts.append((name, sentence))
        return
    result.forms[name] = Form("number", found)
    example = next(filter(tells_marks, texts), next(iter(texts)))
    value = read_number(example, found)
    meaning = f"{value[0]:.12g}" if value else ""
    if len(marks) == 2 and not mark:
        other = MARKS["," if found == "." else "."]
        sentence = f"{name!r} may have a decimal comma or thousands separators, and {example!r} was read as {meaning}: "
        result.doubts.append((name, f"{sentence}set data.columns.decimal={other} for the other reading"))
    elif units == ["%"] and len({unit for _, unit in read}) > 1:
        result.doubts.append((name, f"{name!r} has some values with % and some without: all are read as written"))
    elif meaning != example:
        result.notes.append((name, f"{name!r} holds numbers{describe_units(units)}: {example!r} is read as {meaning}"))


def describe_units(units: list[str]) -> str:
    """A part of a sentence."""
    return f" with {units[0]}" if units else ""


def date_layouts(texts: Counter[str]) -> list[str]:
    """The layouts by which (nearly) all texts are dates: none, one, or day/month and month/day; or ["time"]."""
    few, styles = likely(texts), [style for style in LAYOUTS if style != "yyyymmdd"]
    styles = best_styles({style: share(few, partial(read_date, style=style)) for style in styles})
    if styles and len(few) < len(texts):
        styles = best_styles({style: share(texts, partial(read_date, style=style)) for style in styles})
    return styles or (["time"] if share(few, time_of_day) and share(texts, time_of_day) > MOSTLY else [])


def add_date(result: Recognised, name: str, texts: Counter[str], styles: list[str], order: str) -> None:
    """Enter a column of dates or times."""
    if styles == ["time"]:
        result.forms[name] = Form("time", "time")
        result.notes.append((name, f"{name!r} holds times of the day"))
        return
    both = [style for style in styles if style in ORDERS]
    style = (order if order in both else both[0]) if len(both) == 2 else styles[0]
    result.forms[name] = Form("date", style)
    example = next(iter(texts))
    moment = read_date(example, style)
    meaning = f"{example!r} is read as {moment:%Y-%m-%d}" if moment else f"in the layout {style}"
    dotted = all("." in text for text in list(texts)[:FEW])  # dots separate days from months in every country
    if len(both) == 2 and not order and not dotted:
        other = ORDERS["month/day" if style == "day/month" else "day/month"]
        sentence = f"{name!r} may have the day or the month first, and {meaning}: set data.columns.dates={other}"
        result.doubts.append((name, f"{sentence} for the other reading"))
    else:
        result.notes.append((name, f"{name!r} holds dates: {meaning}"))


def is_compact(column: np.ndarray) -> bool:
    """Whether numbers are dates such as 20120131."""
    if not is_numeric(column):
        return False
    values = np.unique(column[np.isfinite(column)])
    if len(values) < DISTINCT or values[0] < 19000101 or values[-1] > 21001231 or (values != np.floor(values)).any():
        return False
    return all(read_date(f"{value:.0f}", "yyyymmdd") for value in values.tolist())


def interpret_column(column: np.ndarray, name: str, result: Recognised) -> np.ndarray:
    """The column as numbers, if it was recognised as such without strays."""
    form = result.forms.get(name)
    if form is None or form.kind != "number" or first_stray(column, form):
        return column
    return read_numbers(column, name, form)


def interpret(table: Table, forms: Mapping[str, Form]) -> Table:
    """Read the columns by their forms: numbers, and for dates days since 1970 and their parts.

    Raises:
        UserError: a value of another form.
    """
    columns: dict[str, np.ndarray] = {}
    for name, column in table.columns.items():
        form = forms.get(name)
        if form is None and column.dtype.kind != "M":
            columns[name] = column
        elif form is not None and form.kind != "date":
            columns[name] = read_numbers(column, name, form)
        else:
            form = form or Form("date", "typed")
            moments = read_dates(column, name, form)
            missing = np.isnat(moments)
            filled = np.where(missing, np.datetime64(0, "us"), moments)
            columns[name] = np.where(missing, np.nan, filled.astype(np.int64) / 86_400e6)
            for part in form.parts:
                columns[f"{name} ({part})"] = np.where(missing, np.nan, PARTS[part](filled).astype(np.float64))
    return Table(columns)


def read_numbers(column: np.ndarray, name: str, form: Form) -> np.ndarray:
    """Convert texts to float64 with NaN for missing values; numbers stay as they are."""
    if is_numeric(column):
        return column
    values = read_texts(column, name, form, "numbers" if form.kind == "number" else "times")
    return np.array([np.nan if value is None else value for value in values], np.float64)


def read_dates(column: np.ndarray, name: str, form: Form) -> np.ndarray:
    """Convert texts, or numbers such as 20120131, to datetime64[us] with NaT for missing values."""
    if column.dtype.kind == "M":
        return column
    if is_numeric(column):
        column = np.array([None if np.isnan(value) else f"{value:.0f}" for value in column.tolist()], object)
    return np.array(read_texts(column, name, form, "dates"), "datetime64[us]")


def read_texts(column: np.ndarray, name: str, form: Form, what: str) -> list[Any]:
    """The value of each text, None where it is missing.

    Raises:
        UserError: names the column, the row and the text.
    """
    values: dict[Any, Any] = {text: read_value(text, form) for text in known_texts(column)}
    if None in values.values():
        row, text = next((row, text) for row, text in enumerate(column) if values.get(text, 0) is None)
        raise UserError(f"The column {name!r} must hold {what}, but row {row + 1} has {text!r}.")
    return [values.get(text) for text in column.tolist()]


def stray_text(column: np.ndarray, form: Form | None) -> tuple[int, str] | None:
    """Row and value of the first text in a column that otherwise holds numbers or dates; None for any other column."""
    return first_stray(column, form) if form else None


def refuse_strays(table: Table, forms: Mapping[str, Form]) -> None:
    """Refuse columns of numbers or dates with a few texts among them, such as typos or marks for missing values.

    Raises:
        UserError: names the column, the row and the text.
    """
    for name, column in table.columns.items():
        if stray := stray_text(column, forms.get(name)):
            held = "dates" if forms[name].kind == "date" else "numbers"
            raise UserError(
                f"The column {name!r} holds {held}, but row {stray[0] + 1} has {stray[1]!r}: fix it, leave it empty, "
                "or list the column in data.columns.categories."
            )


def many_categories(table: Table, most: int) -> list[tuple[str, str]]:
    """Pairs (column, sentence) for columns of more than `most` categories."""
    found = []
    for name, column in table.columns.items():
        if is_numeric(column):
            continue
        counts = Counter(column[~is_missing(column)].tolist())
        if len(counts) > most:
            lost = sum(count for _, count in counts.most_common()[most:]) / len(column)
            sentence = f"{name!r} has {len(counts):,} categories, of which the {most:,} most frequent are learned: "
            found.append((name, f"{sentence}{lost:.1%} of the rows count as unknown; drop the column if it names rows"))
    return found
