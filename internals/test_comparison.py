"""scripts/runs.py: runs side by side, sorted and filtered, on the terminal and as a page."""

import json
import math
import re
from pathlib import Path

import pytest

from scripts.runs import main
from src.kit.comparison import (
    RunSummary,
    columns,
    compare,
    find_runs,
    keep,
    print_table,
    sort_runs,
    split_columns,
)
from src.kit.config import UserError, load_config, write_config
from src.kit.run import Run

RUNS = {
    "one": (["optimizer.lr=0.1", "scheduler=cosine"], 0.9, 0.3),
    "two": (["optimizer.lr=0.01", "scheduler=one_cycle"], 0.95, 0.5),
    "trial-000": (["optimizer.lr=0.001", "scheduler=cosine", "model=resnet18"], 0.7, 0.2),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Three runs, one of them in the folder of a search, and a damaged one."""
    folder = tmp_path_factory.mktemp("outputs")
    for name, (words, accuracy, loss) in RUNS.items():
        place = folder / "search-lr" if name.startswith("trial") else folder
        cfg = load_config(["data=digits", "tracker=none", f"name={name}", f"output_dir={place.as_posix()}", *words])
        with Run(cfg) as run:
            for epoch in (1, 2):
                run.log_epoch({"epoch": epoch, "step": epoch, "train/loss": 2 * loss, "val/loss": loss / epoch})
            scores = {"split": "test", "accuracy": accuracy, "loss": loss, "samples": 9, "baseline_accuracy": 0.1}
            (run.path / "evaluation-test.json").write_text(json.dumps(scores), "utf-8")
            (run.path / "report.html").touch()
    damaged = folder / "zero-20260101-000000"
    damaged.mkdir()
    (damaged / "run.json").write_text("{", "utf-8")
    write_config(load_config(["data=digits"]), damaged / "config.yaml")
    return folder


def names(runs) -> list[str]:
    return [run.name.rpartition("/")[2].partition("-2")[0] for run in runs]


def test_all_runs_are_found_and_the_best_come_first(outputs):
    runs = find_runs(outputs)
    assert len(runs) == 4
    assert names(sort_runs(runs, None)) == ["two", "one", "trial-000", "zero"]
    assert names(sort_runs(runs, "accuracy")) == ["two", "one", "trial-000", "zero"]
    assert names(sort_runs(runs, "loss")) == ["trial-000", "one", "two", "zero"]  # the lowest
    assert names(sort_runs(runs, "-test/loss")) == ["two", "one", "trial-000", "zero"]
    assert names(sort_runs(runs[:3], "optimizer.lr"))[-1] == "one"


def test_a_score_that_is_not_a_number_comes_last():
    scores = {"a": 2.0, "b": math.nan, "c": 1.0, "d": 3.0}
    runs = [RunSummary(Path(), name, scores={"test/rmse": score}) for name, score in scores.items()]
    assert [run.name for run in sort_runs(runs, None)] == ["c", "a", "d", "b"]
    assert [run.name for run in sort_runs(runs, "-rmse")] == ["d", "a", "c", "b"]


def test_columns_are_scores_and_what_differs(outputs):
    runs = keep(find_runs(outputs), ["status=finished"])
    shown = columns(runs, ["scheduler", "loss"])
    assert shown == [
        *("run", "status", "epochs", "duration_s", "test/accuracy", "scheduler.name", "test/loss"),
        *("model.name", "optimizer.lr"),
    ]
    (row,) = compare(keep(runs, ["optimizer.lr=0.010"]), shown)
    assert row["test/accuracy"] == 0.95 and row["scheduler.name"] == "one_cycle" and row["duration"].endswith(" s")


def test_what_an_option_has_of_itself_is_no_difference():
    losses = {"a": ("cross_entropy", 0.0, ["classification", "tabular"]), "b": ("focal", 2.0, ["classification"])}
    keys = ("loss.name", "loss.gamma", "loss.tasks")
    runs = [RunSummary(Path(), name, config=dict(zip(keys, loss, strict=True))) for name, loss in losses.items()]
    assert columns(runs)[4:] == ["loss.name", "loss.gamma"]


def test_conditions(outputs):
    runs = find_runs(outputs)
    assert names(keep(runs, ["model=resnet18"])) == ["trial-000"]
    assert sorted(names(keep(runs, ["scheduler=c*", "data=digits", "status=finished"]))) == ["one", "trial-000"]
    assert names(keep(runs, ["status=damaged"])) == ["zero"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["--sort", "optimizer.rl"], "Did you mean optimizer.lr?"),
        (["--sort", "acuracy"], "Did you mean accuracy?"),
        (
            ["--sort", "nope"],
            "The runs have status, epochs, duration_s, started, accuracy, loss, baseline_accuracy, and",
        ),
        (["--where", "optimizer.rl=1"], "Did you mean optimizer.lr?"),
        (["--where", "lr"], "write KEY=VALUE"),
        (["--where", "optimizer.lr=7"], "No run has optimizer.lr=7"),
        (["--sort"], "--sort needs a key"),
        (["--sorted"], "Unknown option '--sorted'"),
        (["a", "b"], "Name one folder, not a and b"),
    ],
)
def test_a_mistake_is_one_sentence(outputs, words, said):
    with pytest.raises(UserError) as error:
        main(words if words[:1] in (["nowhere"], ["a"]) else [str(outputs), *words])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (80, [["#", "run", "status", "accuracy"], ["#", "optimizer.lr", "scheduler"]]),
        (69, [["#", "run", "status"], ["#", "accuracy", "optimizer.lr", "scheduler"]]),
        (1000, [["run", "status", "accuracy", "optimizer.lr", "scheduler"]]),
    ],
)
def test_what_a_terminal_has_no_room_for_is_a_table_of_its_own(monkeypatch, capsys, width, parts):
    row = {"run": "r" * 54, "status": "finished", "accuracy": 0.5, "optimizer.lr": 0.001, "scheduler": "one"}
    assert len(split_columns([row, {**row, "accuracy": None}], width)) > 1 or width == 1000
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    print_table([row])
    lines = [re.sub("\x1b.*?m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert [line.split() for line in lines if "scheduler" in line or "run" in line.split()] == parts
    assert max(map(len, lines)) <= width


def test_a_terminal_shows_the_first_of_a_hundred_keys_that_differ(monkeypatch, capsys):
    runs = [
        RunSummary(Path(), name, config={**{f"data.key{k}": name for k in range(100)}, "task": name, "seed": 1})
        for name in "ab"
    ]
    rows = compare(runs, columns(runs))
    print_table(rows)
    assert "data.key99" in capsys.readouterr().out.replace("\n", ""), "a file gets all"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    print_table(rows)
    lines = [re.sub("\x1b.*?m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert "task" in lines[0].split()
    assert len(lines) < 25
    assert lines[-1] == "89 more keys differ, such as data.key11: --page shows all, --sort KEY shows one."


def test_the_table_and_the_page(outputs, capsys):
    main([str(outputs), "--where=status=finished", "--page"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rpartition("/")[2].partition("-2")[0] for line in lines[2:5]] == ["two", "one", "trial-000"]
    assert lines[-1] == f"page: {outputs / 'runs.html'}"
    page = (outputs / "runs.html").read_text("utf-8")
    assert page.count("data:image/png;base64") == 2  # the losses
    assert page.count('/report.html">') == 3
    assert '<a href="search-lr/trial-000-' in page
