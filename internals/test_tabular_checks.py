"""scripts/validate_data.py on tables: every fault is found, and a clean table has none."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from paths import TEMPLATE
from src.kit.checks import KINDS
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.tabular_checks import check_table, column_faults, describe, leak_faults
from table_files import mixed_columns, mixed_config, table_config, write_csv


def found(cfg) -> dict[str, list[tuple[str, str]]]:
    """Kind -> path and sentence of each finding."""
    result: dict[str, list[tuple[str, str]]] = {}
    for finding in check_table(cfg).findings:
        assert finding.kind in KINDS
        result.setdefault(finding.kind, []).append((finding.path, finding.sentence))
    return result


def test_a_clean_table_has_notes_only(tmp_path):
    source = check_table(mixed_config(tmp_path, "data.resample=smote"))
    assert {finding.severity for finding in source.findings} == {"note"}
    assert source.unit == "rows"
    assert source.counts["train"] == {"no": 93, "yes": 47}, "as they are in the file"
    assert len(source.entries) == 200
    findings = found(mixed_config(tmp_path))
    assert [path for path, _ in findings["column"]] == ["age", "income", "city", "noise", "paid"]
    assert findings["column"][2][1].startswith("3 categories, most often ")
    assert findings["column"][4][1].startswith("The target. 2 categories")
    assert findings["missing_values"] == [
        ("income", "12 of 200 (6.0%); replaced by the median."),
        ("city", "12 of 200 (6.0%); replaced by a category of their own."),
    ]


def test_columns_of_every_kind_of_fault(tmp_path):
    columns = mixed_columns()
    paid = columns.pop("paid")
    columns["empty"] = [""] * 200
    columns["same"] = ["x"] * 200
    columns["id"] = [str(row + 1000) for row in range(200)]
    columns["id"][8] = columns["id"][7]  # a row that came twice
    columns["name"] = [f"person {row}" for row in range(200)]
    columns["status"] = ["overdue" if value == "no" else "closed" for value in paid]
    columns["age"][9] = "abc"
    columns["noise"][5] = "99"
    columns["paid"] = ["", *paid[1:]]
    findings = found(table_config(write_csv(tmp_path / "table.csv", columns)))
    assert findings["column_empty"] == [("empty", "It has no value in any row.")]
    assert findings["constant"] == [("same", "Its only value is x.")]
    assert [path for path, _ in findings["identifier"]] == ["id", "name"]
    assert findings["leaking"] == [
        ("status", "Alone it predicts the target with a balanced accuracy of 1.000: is it known before the target is?")
    ]
    assert findings["mixed_types"] == [("age", "It holds numbers, but row 10 has 'abc'.")]
    assert findings["target_missing"] == [("paid", "1 of 200 rows.")]
    assert "the farthest is 99." in dict(findings["outliers"])["noise"]
    assert "table_unusable" not in findings, "the errors above say it"


def test_equal_rows(tmp_path):
    columns = mixed_columns()
    for values in columns.values():
        values += values[:40]
    columns["paid"][200] = "yes" if columns["paid"][0] == "no" else "no"
    findings = found(table_config(write_csv(tmp_path / "table.csv", columns)))
    kinds = {kind: findings[kind] for kind in ("row_conflict", "row_leak", "duplicate_rows")}
    assert sum(map(len, kinds.values())) == 40
    path, sentence = kinds["row_conflict"][0]
    assert path == "row 1"
    assert sentence.startswith("2 rows are equal: 1 (")
    assert " 201 (" in sentence
    assert all(len(set(parts(sentence))) == 2 for _, sentence in kinds["row_leak"])
    assert all(len(set(parts(sentence))) == 1 for _, sentence in kinds["duplicate_rows"])


def parts(sentence: str) -> list[str]:
    return [word.strip("(),.") for word in sentence.split() if word.startswith("(")]


def test_rows_keep_their_numbers_where_some_have_no_target(tmp_path):
    columns = mixed_columns()
    for values in columns.values():
        values.append(values[50])
    columns["paid"][0] = ""
    findings = found(table_config(write_csv(tmp_path / "table.csv", columns)))
    ((path, sentence),) = findings.get("row_leak", []) + findings.get("duplicate_rows", [])
    assert (path, sentence.split(" (")[0]) == ("row 51", "2 rows are equal: 51")
    assert " 201 (" in sentence


def test_classes_of_unequal_size(tmp_path):
    columns = mixed_columns()
    columns["paid"] = ["yes" if row < 15 else "no" for row in range(200)]
    findings = found(table_config(write_csv(tmp_path / "table.csv", columns)))
    assert findings["imbalance"][0][1].startswith("The train split has 129 rows of no and 11 of yes")


def test_what_training_would_refuse_is_an_error(tmp_path):
    cfg = mixed_config(tmp_path, "data.select.method=anova", "data.select.k=9")
    assert len(check_table(cfg).entries) == 200
    findings = found(cfg)
    assert findings["table_unusable"][0][1].startswith("data.select.k=9 is more than the 4 columns")
    with pytest.raises(UserError, match="no column 'label'"):
        check_table(mixed_config(tmp_path, "data.target.column=label"))
    findings = found(load_config(["task=tabular", "data=housing"]))
    assert "holds numbers: set task=tabular_regression, not tabular" in findings["table_unusable"][0][1]


def test_debug_tables():
    for name in ("breast_cancer", "wine", "housing"):
        task = "tabular_regression" if name == "housing" else "tabular"
        source = check_table(load_config([f"task={task}", f"data={name}"]))
        assert {finding.severity for finding in source.findings} == {"note"}, name
        assert {finding.kind for finding in source.findings} == {"column", "outliers"}


def test_outliers_are_those_beyond_tukeys_fences():
    column = np.array([0.0, 1, 2, 3, 4, 10.1, -7])  # quartiles 0.5 and 3.5, fences -4 and 8
    sentence = "2 values (28.6%) lie outside -4 to 8, the farthest is -7."
    assert dict(column_faults(column)) == {"outliers": sentence}
    assert dict(column_faults(column[:-1]))["outliers"].startswith("1 value (16.7%) lies outside")
    assert dict(column_faults(np.array([1.0, 1.0]))) == {"constant": "Its only value is 1."}
    assert not dict(column_faults(np.array([0.0, 0, 0, 0, 0, 5])))


def test_numbers_give_a_target_of_numbers_away():
    random = np.random.default_rng(0)
    target = random.normal(size=600)
    assert [kind for kind, _ in leak_faults(2 * target + 1, target)] == ["leaking"]
    assert not list(leak_faults(target + random.normal(size=600), target))
    assert not list(leak_faults(np.array([f"row {row}" for row in range(600)], object), target)), "names don't repeat"


def test_the_page_of_a_table_speaks_of_rows(tmp_path):
    columns = mixed_columns()
    columns["age"][9] = "abc"
    path = write_csv(tmp_path / "table.csv", columns)
    keys = ["task=tabular", "data=table_file", f"data.root={path.as_posix()}", "data.target.column=paid"]
    command = [sys.executable, TEMPLATE / "scripts" / "validate_data.py", *keys]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("200 rows of table in ")
    folder = tmp_path / "outputs" / "data-report-table"
    page = (folder / "report.html").read_text("utf-8")
    assert "<p>" + path.as_posix() in page
    assert "<b>1 error:</b> fix them before training.</p>" in page
    values = json.loads((folder / "report.json").read_text("utf-8"))
    assert (values["rows"], values["root"]) == (200, str(path))
    for text in (done.stdout, page.split("</style>", 2)[2], *values):
        assert not re.search("image|quarantine|run", text), re.search("image|quarantine|run", text)
    again = subprocess.run([*command, "--quarantine"], cwd=tmp_path, capture_output=True, text=True)
    assert (again.returncode, "moves image files, and table_file has none" in again.stderr) == (2, True)


def test_descriptions():
    assert describe(np.array([np.nan])) == "No values."
    assert describe(np.array([1.0, 2.0, np.inf])) == "Numbers from 1 to 2, mean 1.5, 1 missing (33.3%)."
