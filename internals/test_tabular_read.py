"""Reading CSV and Parquet files, and one sentence for what is wrong with them."""

import gzip
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from scripts.train import main
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.tabular import interpret, read_table
from table_files import mixed_columns, table_config, write_csv


def csv(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_types_are_found_and_missing_values_are_missing(tmp_path):
    path = csv(tmp_path, "n,f,b,day,city\n1,0.5,true,1970-01-03,Bern\n?,NA,false,, Como \n3,-inf,,2000-01-01,\n")
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["n"], [1, np.nan, 3])
    np.testing.assert_array_equal(table.columns["f"], [0.5, np.nan, -np.inf])
    np.testing.assert_array_equal(table.columns["b"], [1, 0, np.nan])
    np.testing.assert_array_equal(table.columns["day"], np.array(["1970-01-03", "NaT", "2000-01-01"], "M8[us]"))
    np.testing.assert_array_equal(interpret(table, {}).columns["day"], [2, np.nan, 10957])
    assert table.columns["city"].tolist() == ["Bern", "Como", None]


def test_parquet_gives_what_csv_gives(tmp_path):
    columns = {name: [value or None for value in values] for name, values in mixed_columns().items()}
    typed = {
        name: pyarrow.array(values).cast(pyarrow.string() if name in ("city", "paid") else pyarrow.float64())
        for name, values in columns.items()
    }
    typed["city"] = typed["city"].dictionary_encode()
    parquet.write_table(pyarrow.table(typed), tmp_path / "table.parquet")
    first = read_table(tmp_path / "table.parquet")
    second = read_table(write_csv(tmp_path / "table.csv", mixed_columns()))
    assert list(first.columns) == list(second.columns)
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name])


def test_parquets_other_types(tmp_path):
    typed = {"time": [datetime(1970, 1, 2, 12), None], "day": [date(1970, 1, 2), None], "price": [Decimal("1.5"), None]}
    parquet.write_table(pyarrow.table(typed), tmp_path / "table.parquet")
    columns = interpret(read_table(tmp_path / "table.parquet"), {}).columns
    assert [columns[name][0] for name in typed] == [1.5, 1.0, 1.5]
    assert all(np.isnan(columns[name][1]) for name in typed)
    parquet.write_table(pyarrow.table({"lists": [[1], [2]], "x": [1, 2]}), tmp_path / "lists.parquet")
    with pytest.raises(UserError, match=r"'lists' holds list<.*, neither numbers nor text: leave it out"):
        read_table(tmp_path / "lists.parquet")
    assert list(read_table(tmp_path / "lists.parquet", drop=["lists"]).columns) == ["x"]


def test_numbers_that_are_categories_keep_their_zeros(tmp_path):
    path = csv(tmp_path, "code;x\n01;1\n1;2\n;3\n")
    assert read_table(path, ";", categories=["code"]).columns["code"].tolist() == ["01", "1", None]
    assert read_table(path, ";").columns["code"].tolist()[:2] == [1, 1]
    parquet.write_table(pyarrow.table({"code": [1.0, 10.5, None]}), tmp_path / "table.parquet")
    column = read_table(tmp_path / "table.parquet", categories=["code"]).columns["code"]
    assert column.tolist() == ["1", "10.5", None]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"can't be read as a table \(Empty CSV file\)"),
        ("a,b\n", "has 0 rows and 2 columns: there is nothing to learn from"),
        ("a,b,a\n1,2,3\n", "has several columns called 'a': give each a different name"),
        ("a,b\n1,2\n3\n", r"can't be read as a table .*Expected 2 columns, got 1"),
    ],
)
def test_damaged_files(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_table(csv(tmp_path, text))


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*none\.csv is not a file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"is neither CSV .* nor Parquet"):
        read_table(csv(tmp_path, "a,b\n1,2\n", "table.xlsx"))
    with pytest.raises(UserError, match="can't be read as a table"):
        read_table(csv(tmp_path, "a,b\n1,2\n", "table.parquet"))
    (tmp_path / "latin.csv").write_bytes("a,b\nZürich,1\n".encode("latin-1"))
    with pytest.raises(UserError, match="has no column 'c' to drop or to read as categories: it has a, b"):
        read_table(csv(tmp_path, "a,b\n1,2\n"), drop=["c"])


@pytest.mark.parametrize("cut", [5, 11, 20, 45, -1])
def test_a_cut_or_damaged_gzip_file(tmp_path, cut):
    path, whole = tmp_path / "table.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n3,4\n" * 500)
    for content in (whole[:cut], whole[:10] + b"\xff" + whole[11:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"table\.csv\.gz can't be read as a table"):
            read_table(path)


def test_text_that_is_not_utf_8_is_said_to_be_that(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("a,b\nZürich,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv: 'a' holds text that is not UTF-8: save the file as UTF-8"):
        read_table(path)
    with pytest.raises(UserError, match=r"invalid UTF8 data\): save it as UTF-8"):
        read_table(path, categories=["a"])
    assert list(read_table(path, drop=["a"]).columns) == ["b"]
    path.write_bytes("Größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv can't be read as a table .*: save it as UTF-8"):
        read_table(path)
    parquet.write_table(pyarrow.table({"a": [b"\xff"], "b": [1]}), tmp_path / "bytes.parquet")
    with pytest.raises(UserError, match="'a' holds binary, neither numbers nor text: leave it out"):
        read_table(tmp_path / "bytes.parquet")


def test_a_tab_has_names_and_tsv_files_have_it_of_themselves(tmp_path):
    table, plain = "a\tb\n1\t2\n", "a;b\n1;2\n"
    for delimiter in ("tab", "\\t", "\t"):
        assert list(read_table(csv(tmp_path, table), delimiter).columns) == ["a", "b"]
    assert list(read_table(csv(tmp_path, table, "table.TSV")).columns) == ["a", "b"]
    assert list(read_table(csv(tmp_path, plain, "table.tsv"), ";").columns) == ["a", "b"]


@pytest.mark.parametrize("delimiter", [";;", "", "§", "\n", "\\t\\t"])
def test_a_delimiter_that_is_none_is_one_sentence(tmp_path, delimiter):
    with pytest.raises(
        UserError, match=r"data\.columns\.delimiter='.*' must be one ASCII character, such as ';', or tab"
    ):
        read_table(csv(tmp_path, "a,b\n1,2\n"), delimiter)


def test_a_table_that_turns_out_to_have_one_column_names_the_delimiter(tmp_path):
    path = write_csv(tmp_path / "table.csv", mixed_columns(), ";")
    refused(
        path,
        r"no column 'paid' for data\.target\.column: its only column is 'age;income;city;noise;paid', so set "
        r"data\.columns\.delimiter=';'",
    )
    refused(
        path,
        r"has no column 'city' to drop .*: its only column is 'age;.*', so set data\.columns\.delimiter=';'",
        "data.columns.drop=[city]",
    )
    assert len(build_dataset(table_config(path, "data.columns.delimiter=;"), "train")) == 140


@pytest.mark.parametrize(
    ("content", "name", "delimiter", "learning", "predicting"),
    [
        ("a;b\n1;2\n", "t.csv", ",", "so set data.columns.delimiter=';'", "have ';' between its columns, not ','"),
        (
            "a;b\n1,5;2,5\n",
            "t.csv",
            ",",
            "): set data.columns.delimiter=';'.",
            "not ',' as in training: save it with ','",
        ),
        ("a\tb\n1\t2\n", "t.csv", ";", "so set data.columns.delimiter=tab", "have tab between its columns, not ';'"),
        (
            "a,b\n1,2\n",
            "t.tsv",
            ",",
            "leave data.columns.delimiter out and call the file .csv",
            "not tab as in training",
        ),
        (
            "a\n1\n",
            "t.csv",
            ",",
            "only column is 'a', so check data.columns.delimiter",
            "lacks columns that .* on: 'b'",
        ),
        ("a\n1,2\n", "t.csv", ",", "): check data.columns.delimiter", "): check data.columns.delimiter"),
        ("a,b\n1,2,3\n", "t.csv", ",", "): check the file and data.columns.delimiter", "): check the file"),
        (
            "a,c,b\n",
            "t.csv",
            ",",
            "0 rows and 3 columns: there is nothing to learn from",
            "there is nothing to predict",
        ),
    ],
)
def test_a_file_that_cannot_be_used_names_what_separates_its_columns(
    tmp_path, content, name, delimiter, learning, predicting
):
    path = csv(tmp_path, content, name)
    with pytest.raises(UserError, match=learning.replace(".", r"\.").replace(")", r"\)")):
        read_table(path, delimiter, categories=["b"])
    with pytest.raises(UserError, match=predicting.replace(")", r"\)")):
        read_table(path, delimiter, categories=["b"], needed=["a", "b"])


def refused(path: Path, sentence: str, *overrides: str, target: str = "paid") -> None:
    with pytest.raises(UserError, match=sentence):
        build_dataset(table_config(path, *overrides, target=target), "train")


def test_a_missing_target_column(tmp_path):
    path = write_csv(tmp_path / "table.csv", mixed_columns())
    refused(
        path,
        r"no column 'label' for data\.target\.column: it has age, income, city, noise, paid",
        target="label",
    )


@pytest.mark.parametrize("task", ["tabular", "tabular_regression"])
def test_training_without_the_target_column_ends_in_one_sentence(tmp_path, task):
    path = write_csv(tmp_path / "table.csv", mixed_columns())
    keys = [f"task={task}", "data=table_file", f"data.root={path.as_posix()}", "data.target.column=label"]
    keys += ["data.target.kind=number"] * (task == "tabular_regression")
    with pytest.raises(UserError, match="The table has no column 'label'"):
        main([f"output_dir={(tmp_path / 'runs').as_posix()}", "tracker=none", *keys])
    assert not list(tmp_path.glob("runs/*"))


def test_an_only_column(tmp_path):
    refused(
        csv(tmp_path, "paid\nyes\nno\n"), r"no column but the target 'paid', .*: check data\.columns\.delimiter and"
    )


def test_a_target_with_one_class(tmp_path):
    path = write_csv(tmp_path / "table.csv", {**mixed_columns(), "paid": ["no"] * 199 + [""]})
    refused(path, "target column 'paid' has 1 value in 200 rows: at least 2 different ones are needed")
    refused(csv(tmp_path, "age,paid\n1,\n"), "target column 'paid' has no value in 1 row: at least 2 different ones")


def test_a_target_of_another_kind(tmp_path):
    path = write_csv(tmp_path / "table.csv", mixed_columns())
    refused(
        path, r"'noise' has numbers such as .*, which are not classes: set data\.target\.kind=number", target="noise"
    )
    number = ("task=tabular_regression", "data.target.kind=number")
    refused(path, r"'paid' must hold numbers, but it has '(yes|no)'", *number)
    refused(path, r"data\.resample=smote needs classes", *number, "data.resample=smote", target="noise")
    refused(path, r"data\.classes=.* needs classes", *number, "data.classes=[a,b]", target="noise")


def test_an_all_missing_column(tmp_path):
    columns = mixed_columns()
    path = write_csv(tmp_path / "table.csv", {"empty": [""] * 200, **columns})
    refused(path, r"column 'empty' has no value in the training rows: list it in data\.columns\.drop")
    split = build_dataset(table_config(path, "data.columns.drop=[empty]"), "train")
    assert split.preprocessing.names == ("age", "income", "noise", "city")


def test_text_in_a_column_of_numbers(tmp_path):
    columns = mixed_columns()
    columns["income"][6] = "about 12"
    columns["income"] = [f'"{value}"' for value in columns["income"]]
    path = write_csv(tmp_path / "table.csv", columns)
    refused(path, r"column 'income' holds numbers, but row 7 has 'about 12': fix it, leave it empty, or list")
    split = build_dataset(table_config(path, "data.columns.categories=[income]"), "train")
    assert [column.name for column in split.preprocessing.categories] == ["income", "city"]


def test_line_breaks_between_quotation_marks_in_a_large_file(tmp_path):
    text = "one\nline and another, " * 40
    path = csv(tmp_path, "id,text,x\n" + "".join(f'{row},"{text}{row % 7}",{row / 2}\n' for row in range(1500)))
    assert path.stat().st_size > 1 << 20
    columns = read_table(path).columns
    assert len(columns["id"]) == 1500
    assert columns["text"][3] == f"{text}3"
    np.testing.assert_array_equal(columns["x"], np.arange(1500) / 2)


@pytest.mark.parametrize(("encoding", "delimiter"), [("utf-16", "tab"), ("utf-16-be", "tab"), ("utf-8-sig", "tab")])
def test_excels_unicode_text(tmp_path, encoding, delimiter):
    path = tmp_path / "table.txt"
    path.write_bytes("Größe\tx\ngroß\t1\nklein\t2\n".encode(encoding))
    columns = read_table(path, delimiter).columns
    assert list(columns) == ["Größe", "x"]
    assert columns["Größe"].tolist() == ["groß", "klein"]


def test_blanks_around_headers_and_values(tmp_path):
    path = csv(tmp_path, "a , code, target \n 0.5, 01 , 1\n\u00a00.7, 1 , 0\n")
    columns = read_table(path, categories=["code"]).columns
    assert list(columns) == ["a", "code", "target"]
    assert columns["code"].tolist() == ["01", "1"]
