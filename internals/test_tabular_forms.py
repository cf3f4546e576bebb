"""Numbers and dates in the forms that people write: recognised for a column as a whole, kept with the weights."""

from pathlib import Path

import numpy as np
import pytest

from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.tabular import Table, interpret, read_table
from src.kit.tabular.forms import Recognised, recognise
from src.kit.tabular.preprocessing import from_json
from src.kit.tabular.written import LAYOUTS, read_date, read_number, time_of_day
from src.kit.tabular_checks import check_table
from table_files import table_config, write_csv

VALUES = np.round(np.random.default_rng(0).normal(0, 900, 60), 2)
PLAIN = {"decimal": "auto", "dates": "auto", "categories": [], "delimiter": ","}


def texts(*values: str | None) -> np.ndarray:
    return np.array(values, object)


def grouped(value: float, group: str, mark: str) -> str:
    """1234.5 -> 1,234.50"""
    return f"{value:,.2f}".translate(str.maketrans({",": group, ".": mark}))


@pytest.mark.parametrize(
    "write",
    [
        lambda value: f"{value:.2f}".replace(".", ","),
        lambda value: grouped(value, ",", "."),
        lambda value: grouped(value, ".", ","),
        lambda value: grouped(value, " ", ","),
        lambda value: grouped(value, "\u202f", ","),
        lambda value: grouped(value, "'", "."),
        lambda value: f"{value:.2f}%",
        lambda value: f"{value:.2f} %".replace(".", ","),
        lambda value: f"${value:.2f}",
        lambda value: f"-${-value:,.2f}" if value < 0 else f"${value:,.2f}",
        lambda value: f"({-value:,.2f})" if value < 0 else f"{value:,.2f}",
        lambda value: f"{grouped(value, '.', ',')} €",
        lambda value: f"R$ {grouped(value, '.', ',')}",
        lambda value: f"CHF {grouped(value, '’', '.')}",
        lambda value: f"\u00a0{value:.2f}",
        lambda value: f"{value:.2f}".replace("-", "\u2212"),
    ],
)
def test_numbers_are_numbers_however_they_are_written(tmp_path, write):
    target = ["yes" if row % 2 else "no" for row in range(60)]
    path = write_csv(tmp_path / "table.csv", {"a": [write(value) for value in VALUES], "paid": target}, "|")
    table = read_table(path, "|")
    found = recognise(table.drop("paid"), PLAIN)
    np.testing.assert_array_equal(interpret(table, found.forms).columns["a"], VALUES)
    assert not found.doubts
    assert build_dataset(table_config(path, "data.columns.delimiter=|"), "train").preprocessing.cardinalities == ()


def test_thousands_without_decimals():
    column = texts("8,000", "12,500", "950", "1,234,567")
    table = Table({"a": column})
    assert interpret(table, recognise(table, PLAIN).forms).columns["a"].tolist() == [8000, 12500, 950, 1234567]


def test_what_can_be_read_in_two_ways_is_said_and_a_key_decides():
    table = Table({"a": texts("8,000", "9,500", "7,250")})
    found = recognise(table, PLAIN)
    assert interpret(table, found.forms).columns["a"].tolist() == [8000, 9500, 7250]
    [(column, sentence)] = found.doubts
    assert column == "a"
    assert "'8,000' was read as 8000: set data.columns.decimal=comma" in sentence
    comma = recognise(table, {**PLAIN, "decimal": "comma"})
    assert interpret(table, comma.forms).columns["a"].tolist() == [8.0, 9.5, 7.25]
    assert not comma.doubts
    beside = Table({**table.columns, "b": texts("1,5", "2,25", None)})
    assert interpret(beside, recognise(beside, PLAIN).forms).columns["a"].tolist() == [8.0, 9.5, 7.25]
    assert interpret(table, recognise(table, {**PLAIN, "delimiter": ";"}).forms).columns["a"][1] == 9.5


def test_points_are_thousands_where_another_column_has_decimal_commas(tmp_path):
    columns = {"a": ["8.000", "9.500", "12.250"], "b": ["1,5", "2,25", "3,75"], "paid": ["1", "0", "1"]}
    path = write_csv(tmp_path / "table.csv", columns, ";")
    table = read_table(path, ";")
    assert interpret(table, recognise(table, PLAIN).forms).columns["a"].tolist() == [8000, 9500, 12250]
    path = write_csv(tmp_path / "table.csv", {**columns, "a": ["0.125", "9.500", "12.250"]}, ";")
    table = read_table(path, ";")
    assert interpret(table, recognise(table, PLAIN).forms).columns["a"].tolist() == [0.125, 9.5, 12.25]


@pytest.mark.parametrize("values", [("$5", "€7", "$9"), ("red", "blue", "12"), ("12 kg", "7", "x"), ("555-123", "1-2")])
def test_what_is_no_number_stays_a_category(values):
    assert recognise(Table({"a": texts(*values)}), PLAIN).forms == {}


def test_two_currencies_are_said():
    [(_, sentence)] = recognise(Table({"a": texts("$5", "€7", "$9")}), PLAIN).doubts
    assert "holds numbers in $ and € and is read as categories: convert them to one unit" in sentence


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *((text, None) for text in ("1,2,3", "", "-", "1.2.3", "1_000", "nan", "0x10")),
        *(("1e5", 1e5), ("+.5", 0.5), ("5-", -5.0), ("$-5", -5.0), ("1,23,456.78", 123456.78)),
    ],
)
def test_single_numbers(text, number):
    found = read_number(text)
    assert (found and found[0]) == number


DATES = {
    "2012/01/31": "year-month-day",
    "2012.1.31": "year-month-day",
    "31.01.2012": "day/month",
    "31/1/12": "day/month",
    "01/31/2012": "month/day",
    "31 Jan 2012": "day name year",
    "31-JAN-12": "day name year",
    "31st January 2012": "day name year",
    "Jan 31, 2012": "name day year",
    "January 31 2012": "name day year",
    "Tue, 31 Jan 2012": "day name year",
    "2012-Jan-31": "year name day",
    "2012年1月31日": "年月日",
    "20120131": "yyyymmdd",
}


@pytest.mark.parametrize("text", DATES)
@pytest.mark.parametrize(
    ("suffix", "hour", "minute"),
    [("", 0, 0), (" 14:05", 14, 5), (" 2:05 PM", 14, 5), ("T14:05:00Z", 14, 5), (" 14:05:09.5 +02:00", 12, 5)],
)
def test_dates_in_the_usual_layouts(text, suffix, hour, minute):
    found = {style: moment for style in LAYOUTS if (moment := read_date(text + suffix, style))}
    assert list(found) == [DATES[text]]
    moment = found[DATES[text]]
    assert (moment.year, moment.month, moment.day, moment.hour, moment.minute) == (2012, 1, 31, hour, minute)


@pytest.mark.parametrize("text", ["2012-02-30", "2012-13-01", "31/31/2012", "2012-01-01 25:00", "12 Foo 2012", "1/2"])
def test_dates_that_do_not_exist(text):
    assert not any(read_date(text, style) for style in LAYOUTS)


def days(layout: str, count: int = 60) -> list[str]:
    moments = np.arange("2011-12-20T06:00", "2013-12-20T06:00", np.timedelta64(277, "h"), "M8[m]")[:count]
    return [moment.astype(object).strftime(layout) for moment in moments]


@pytest.mark.parametrize("layout", ["%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d %b %Y %H:%M", "iso"])
def test_a_date_gives_days_year_month_weekday_and_hour(tmp_path, layout):
    written = days("%Y-%m-%d %H:%M:%S" if layout == "iso" else layout)
    table = read_table(write_csv(tmp_path / "t.csv", {"day": [*written, ""], "x": ["1"] * 61}))
    columns = interpret(table, recognise(table, PLAIN).forms).columns
    assert list(columns) == ["day", "day (year)", "day (month)", "day (weekday)", "day (hour)", "x"]
    assert [columns[name][0] for name in columns][:5] == [15328.25, 2011, 12, 1, 6], "a Tuesday"
    assert [columns[name][1] for name in columns][2:5] == [12, 5, 19], "277 hours later, a Saturday"
    assert all(np.isnan(columns[name][60]) for name in list(columns)[:5])


def test_dates_with_equal_parts_have_no_column_for_them():
    table = Table({"day": texts("2012/01/02", "2012/01/03", "2012/01/04")})
    assert recognise(table, PLAIN).forms["day"].parts == ("weekday",)


def test_whole_numbers_that_are_all_dates_are_dates():
    numbers = np.array([float(text) for text in days("%Y%m%d")])
    assert recognise(Table({"day": numbers}), PLAIN).forms["day"].style == "yyyymmdd"
    assert recognise(Table({"day": numbers}), {**PLAIN, "categories": ["day"]}).forms == {}
    assert recognise(Table({"day": numbers + 50}), PLAIN).forms == {}


def test_days_and_months_that_can_be_swapped():
    table = Table({"day": texts("01/02/2012", "03/04/2012", "05/06/2012")})
    found = recognise(table, PLAIN)
    assert found.forms["day"].style == "day/month"
    assert "'01/02/2012' is read as 2012-02-01: set data.columns.dates=month_first" in found.doubts[0][1]
    other = recognise(table, {**PLAIN, "dates": "month_first"})
    assert (other.forms["day"].style, other.doubts) == ("month/day", [])
    beside = Table({**table.columns, "sent": texts("12/31/2012", "01/02/2012", None)})
    assert recognise(beside, PLAIN).forms["day"].style == "month/day"
    assert recognise(Table({"day": texts("01.02.2012", "03.04.2012")}), PLAIN).doubts == []


def test_times_of_the_day():
    table = Table({"at": texts("3:30 pm", "12:00 am", None)})
    np.testing.assert_array_equal(interpret(table, recognise(table, PLAIN).forms).columns["at"], [15.5 / 24, 0, np.nan])


def dated(folder: Path, name: str = "table.csv", rows: slice = slice(None)) -> Path:
    amounts = [grouped(value, ".", ",") for value in VALUES]
    columns = {"amount": amounts, "day": days("%d/%m/%Y"), "paid": ["yes" if value > 0 else "no" for value in VALUES]}
    return write_csv(folder / name, {column: values[rows] for column, values in columns.items()}, ";")


def test_another_table_is_read_as_the_one_that_was_trained_on(tmp_path):
    keys = ("data.columns.delimiter=;",)
    split = build_dataset(table_config(dated(tmp_path), *keys), "train")
    assert split.preprocessing.names == ("amount", "day", "day (year)", "day (month)", "day (weekday)")
    assert any("'amount' holds numbers" in note for note in split.notes)
    fitted = from_json(split.preprocessing.to_json())
    assert fitted == split.preprocessing
    few = write_csv(tmp_path / "few.csv", {"amount": ["1.250", "2.500"], "day": ["01/02/2012", "03/04/2012"]}, ";")
    values = fitted.transform(read_table(few, ";", decimal="comma"))
    amount, day = fitted.numbers[:2]
    np.testing.assert_allclose(values[:, 0] * amount.scale + amount.mean, [1250, 2500], rtol=1e-6)
    np.testing.assert_allclose(values[:, 1] * day.scale + day.mean, [15371, 15433], rtol=1e-6)


def test_a_few_other_texts_among_dates_are_refused(tmp_path):
    columns = {"day": [*days("%Y/%m/%d", 59), "soon"], "paid": ["yes", "no"] * 30}
    path = write_csv(tmp_path / "table.csv", columns)
    with pytest.raises(UserError, match=r"'day' holds dates, but row 60 has 'soon': fix it, leave it empty"):
        build_dataset(table_config(path), "train")
    columns["day"][59] = "-"
    assert len(build_dataset(table_config(write_csv(path, columns)), "train")) == 44


def test_a_target_in_another_form(tmp_path):
    columns = {"x": [str(value) for value in VALUES], "price": [f"${value:,.2f}" for value in VALUES]}
    path = write_csv(tmp_path / "table.csv", {name: [f'"{v}"' for v in values] for name, values in columns.items()})
    split = build_dataset(
        table_config(path, "task=tabular_regression", "data.target.kind=number", target="price"), "train"
    )
    np.testing.assert_array_equal(split.targets, VALUES[split.ids])


def test_more_categories_than_are_learned_are_said(tmp_path):
    columns = {"zip": [f"z{row}" for row in range(3000)], "x": ["1", "2"] * 1500, "paid": ["yes", "no"] * 1500}
    split = build_dataset(table_config(write_csv(tmp_path / "table.csv", columns)), "train")
    assert "'zip' has 2,100 categories, of which the 1,000 most frequent are learned: 52.4% of the" in split.doubts[0]


def test_the_report_says_what_was_read_and_what_is_doubtful(tmp_path):
    columns = {"a": ["8,000", "9,500"] * 30, "b": [f"{value:.0f}%" for value in VALUES], "paid": ["yes", "no"] * 30}
    path = write_csv(tmp_path / "table.csv", {name: [f'"{v}"' for v in values] for name, values in columns.items()})
    source = check_table(table_config(path))
    sentences = {(finding.kind, finding.path): finding.sentence for finding in source.findings}
    assert "set data.columns.decimal=comma" in sentences["doubtful_form", "a"]
    assert "Numbers with %: " in sentences["column", "b"]
    assert not any(finding.severity == "error" for finding in source.findings)


def test_recognised_is_what_it_says() -> None:
    assert recognise(Table({"a": np.arange(3.0), "b": texts("x", "y", None)}), PLAIN) == Recognised({}, [], [])


@pytest.mark.parametrize(("fraction", "microseconds"), [("001001", 1001), ("5", 500_000), ("1234567", 123_456)])
def test_fractions_of_a_second_are_exact(fraction, microseconds):
    assert time_of_day(f"0:00:00.{fraction}") == microseconds / 86_400_000_000
