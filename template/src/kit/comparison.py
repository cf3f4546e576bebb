"""Runs side by side: their test scores, what differs between their configurations, and their curves.

A run is a folder with a run.json, wherever it lies: trials of a search and folds of a cross-validation are runs too.
"""

import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import cycle, product
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.kit.config import UserError, leaves, refuse_url, unknown_key
from src.kit.report import (
    HEADLINES,
    PALETTE,
    TEMPLATE,
    Link,
    card,
    duration,
    escaped,
    new_figure,
    points,
    save_figure,
    section,
    side_by_side,
    table,
)
from src.kit.storage import read_intact, read_rows, sort_paths, write_text

__all__ = ["RunSummary", "columns", "compare", "find_runs", "keep", "print_table", "sort_runs", "write_comparison"]

OWN = ("name", "output_dir")  # keys that differ in every run
FIXED = ("tasks", "file")  # keys of a group that its options have of themselves
IMPLIED = ("data", "model")  # groups whose name says what most of their other keys are
FACTS = ("status", "epochs", "duration_s", "started")
LOSSES = ("loss", "rmse", "mae", "error", "brier")  # parts of the names of scores of which less is better
LABEL = 40  # letters of a run's name in a legend
MOST_CURVES = 12  # that can be told apart
MOST_COLUMNS = 16  # on a terminal: runs of other tasks may differ in a hundred keys


@dataclass(frozen=True)
class RunSummary:
    """One run: where it is, how it ended, what it scored on the test split, and its configuration by dotted key."""

    path: Path
    name: str  # relative to the folder that was searched
    facts: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)  # "test/accuracy" -> 0.97
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)  # the finished epochs

    def get(self, key: str) -> Any:
        """A fact, a score or a value of the configuration; `accuracy` is `test/accuracy`, `model` is `model.name`."""
        if key == "run":
            return self.name
        values = self.facts | self.scores | self.config
        return next((values[name] for name in spellings(key) if name in values), None)


def spellings(key: str) -> tuple[str, str, str]:
    """What a key may stand for: itself, a score of the test split, or a group's name."""
    return key, f"test/{key}", f"{key}.name"


def find_runs(folder: Path) -> list[RunSummary]:
    """All runs below a folder, by name.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        refuse_url(folder)
        raise UserError(f"{folder} is not a folder: name the one with the runs, such as outputs.")
    paths = []
    for path, folders, files in os.walk(folder):
        if "run.json" in files and not any(name.startswith("fold-") for name in folders):
            paths.append(Path(path))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    if not paths:
        raise UserError(f"{folder} holds no run: train first, with `python scripts/train.py`.")
    return [summarize(path, folder) for path in sort_paths(paths)]


def summarize(run: Path, folder: Path) -> RunSummary:
    """Read one run; what is damaged is missing, since it must not hide the others."""
    name = run.relative_to(folder).as_posix() if run != folder else run.name
    info, rows = read_intact(run / "run.json"), read_rows(run / "metrics.jsonl")
    facts: dict[str, Any] = {"status": info.get("status", "damaged"), "epochs": len(rows)}
    facts |= {key: info[key] for key in ("duration_s", "started") if key in info}
    evaluation = read_intact(run / "evaluation-test.json")
    scores = {f"test/{key}": value for key, value in evaluation.items() if isinstance(value, float)}
    return RunSummary(run, name, facts, scores, read_config(run / "config.yaml"), rows)


def read_config(path: Path) -> dict[str, Any]:
    """A saved configuration by dotted key, empty if it is missing or damaged; interpolations stay as they are."""
    try:
        content = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
        plain = OmegaConf.to_container(content, resolve=False) if isinstance(content, DictConfig) else {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    return leaves(plain)


def keep(runs: Sequence[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """The runs that meet all conditions `key=value`; a value may have * and ? in it.

    Raises:
        UserError: a condition without a value, a key that no run has, or no run that meets them.
    """
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"Cannot read --where {condition}: write KEY=VALUE, such as --where model=resnet18.")
        check_key(key, runs)
        runs = [run for run in runs if meets(run.get(key), value)]
    if not runs:
        raise UserError(f"No run has {' and '.join(conditions)}: leave a condition out.")
    return list(runs)


def meets(found: Any, value: str) -> bool:
    """Whether a run's value is the one in the condition: `0.10` is 0.1, `true` is True."""
    text = "null" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return math.isclose(found, float(value))
        except ValueError:
            pass
    return fnmatchcase(text, value)


def check_key(key: str, runs: Sequence[RunSummary]) -> None:
    """Refuse a key that no run has, and name the nearest one, or what there is."""
    if not any(run.get(key) is not None or key in run.config for run in runs):
        known = {name for run in runs for name in (*run.facts, *run.scores, *run.config)}
        groups = {name.partition(".")[0] for name in known if "." in name}
        short = dict.fromkeys(name.removeprefix("test/") for run in runs for name in (*run.facts, *run.scores))
        listed = f"The runs have {', '.join(short)}, and the keys in their config.yaml, such as optimizer.lr."
        raise UserError(unknown_key(key, [*sorted(known), *short], groups, listed=listed))


def sort_runs(runs: Sequence[RunSummary], key: str | None) -> list[RunSummary]:
    """Best scores first, other values in ascending order; `-key` turns it round.

    Runs without a value, or with NaN, come last.

    Args:
        key: a fact, a score or a key of the configuration; None: the first score that any run has, else the start.

    Raises:
        UserError: no run has the key.
    """
    if key is None:
        key = next((name for name in headlines(runs)), "started")
    backwards, name = key.startswith("-"), key.removeprefix("-")
    if name != "run":
        check_key(name, runs)
    score = any(f"test/{name.removeprefix('test/')}" in run.scores for run in runs)
    best_first = score and not any(word in name for word in LOSSES)
    have = [run for run in runs if not is_missing(run.get(name))]
    numbers = all(isinstance(run.get(name), int | float) for run in have)
    ordered = sorted(
        have, key=lambda run: run.get(name) if numbers else str(run.get(name)), reverse=best_first != backwards
    )
    return [*ordered, *(run for run in runs if is_missing(run.get(name)))]


def is_missing(value: Any) -> bool:
    """Whether a run has no such value, or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def headlines(runs: Sequence[RunSummary]) -> list[str]:
    """The tasks' main scores that any of the runs has."""
    return [f"test/{name}" for name in HEADLINES if any(f"test/{name}" in run.scores for run in runs)]


def differences(runs: Sequence[RunSummary]) -> list[str]:
    """The keys that all of the runs have and whose values differ, without those that a group's name implies.

    Keys without a group come first, then the groups: they say more than the keys within a group.
    """
    known = [run for run in runs if run.config]
    if len(known) < 2:
        return []
    found = []
    for key in known[0].config:
        values = [run.config.get(key, ...) for run in known]
        if (
            key in OWN
            or key.rpartition(".")[2] in FIXED
            or ... in values
            or all(value == values[0] for value in values)
        ):
            continue
        group = key.partition(".")[0]
        pairs = {(str(run.config.get(f"{group}.name")), str(value)) for run, value in zip(known, values, strict=True)}
        if group in IMPLIED and not key.endswith(".name") and len({name for name, _ in pairs}) == len(pairs):
            continue
        found.append(key)
    return sorted(found, key=lambda key: ("." in key, not key.endswith(".name")))


def columns(runs: Sequence[RunSummary], more: Sequence[str] = ()) -> list[str]:
    """What to show: the main scores, the keys that the user has named, and what differs."""
    known = {name for run in runs for name in (*run.facts, *run.scores, *run.config)}
    named = [next((name for name in spellings(key) if name in known), key) for key in more]
    return list(dict.fromkeys(["run", *FACTS[:3], *headlines(runs), *named, *differences(runs)]))


def compare(runs: Sequence[RunSummary], shown: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each run, ready to be shown."""
    rows = []
    for run in runs:
        row = {key: run.get(key) for key in shown}
        if isinstance(row.get("duration_s"), int | float):
            row["duration_s"] = duration(row["duration_s"])
        rows.append({key.removesuffix("_s"): readable_value(value) for key, value in row.items()})
    return rows


def readable_value(value: Any) -> Any:
    """Lists and truth values as they are written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else value


def write_comparison(folder: Path, runs: Sequence[RunSummary], shown: Sequence[str], subtitle: str) -> Path:
    """Write `runs.html` into a folder: the table, with links to the reports, and the curves of the first runs."""
    rows = compare(runs, shown)
    for row, run in zip(rows, runs, strict=True):
        numbers = {key: as_text(value) for key, value in row.items() if "/" not in key and isinstance(value, float)}
        row.update(numbers)  # a learning rate is no share
        if (run.path / "report.html").is_file() and run.path != folder:
            row["run"] = Link(f"{run.name}/report.html", run.name)
    drawn = [run for run in runs if run.rows][:MOST_CURVES]
    first = [(name, runs[0].scores[name]) for name in headlines(runs)[:1] if name in runs[0].scores]
    cards = [*(card(f"{value:.4g}", f"{name} of the first") for name, value in first), card(str(len(runs)), "runs")]
    with tempfile.TemporaryDirectory() as pictures:
        paths = draw_comparison(drawn, Path(pictures))
        curves = [side_by_side(paths[at : at + 2], "chart") for at in range(0, len(paths), 2)]
    title = f"Curves of the first {len(drawn)} runs" if len(drawn) < len(runs) else "Curves"
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escaped(f"Runs in {folder}"),
        subtitle=escaped(subtitle or "all runs"),
        cards="".join(cards),
        advice="",
        sections="\n".join([section("Runs", table(rows, wide=True)), section(title, *curves)]),
    )
    return write_text(folder / "runs.html", page)


def draw_comparison(runs: Sequence[RunSummary], folder: Path) -> list[Path]:
    """Draw each column of metrics.jsonl that several runs have, a line for each run."""
    names = [name for run in runs for row in run.rows for name in row if "/" in name]
    ordered = sorted(dict.fromkeys(names), key=lambda name: (not name.endswith("/loss"), name))
    short = [re.sub(r"-\d{8}-\d{6}$", "", run.name)[-LABEL:] for run in runs]
    labels = short if len(set(short)) == len(short) else [run.name[-LABEL:] for run in runs]
    written = []
    for name in ordered:
        lines = [(label, *points(run.rows, name)) for label, run in zip(labels, runs, strict=True)]
        lines = [line for line in lines if line[1]]
        if len(lines) > min(1, len(runs) - 1):
            written.append(draw_column(name, lines, folder / f"{name.replace('/', '-')}.png"))
    return written


def draw_column(name: str, lines: Sequence[tuple[str, list[float], list[float]]], path: Path) -> Path:
    """Draw one column over the epochs."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for (label, x, y), (style, colour) in zip(lines, cycle(product(("-", "--"), PALETTE)), strict=False):
        marker = "o" if len(x) <= 30 else ""
        axes.plot(x, y, style, color=colour, linewidth=1.8, marker=marker, markersize=3, label=label)
    axes.set_title(name)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, handlelength=1.8)
    return save_figure(figure, path)


def as_text(value: Any) -> str:
    """A cell of the table on the terminal."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows: as tables that fit the terminal's width, or, for a file or another program, one line each.

    A second table has the rows' numbers in place of their names.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    hidden = list(rows[0])[MOST_COLUMNS:]
    if not console.is_terminal:
        console, hidden = Console(highlight=False, markup=False, emoji=False, width=1000), []
    rows = [{key: row[key] for key in row if key not in hidden} for row in rows]
    if len(split_columns(rows, console.width)) > 1:
        rows = [{"#": number, **row} for number, row in enumerate(rows, 1)]
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    for number, part in enumerate(split_columns(rows, console.width)):
        shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for key in part:
            shown.add_column(key, justify="right" if key in numbers else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(as_text(row[key]) for key in part))
        if number:
            console.print()
        console.print(shown)
    if hidden:
        console.print(f"{len(hidden)} more keys differ, such as {hidden[0]}: --page shows all, --sort KEY shows one.")


def split_columns(rows: Sequence[Mapping[str, Any]], width: int) -> list[list[str]]:
    """The columns of each table: as many as the width holds, the first column again in each."""
    from rich.cells import cell_len

    first, *others = rows[0]
    space = {key: 2 + max(cell_len(text) for text in (key, *(as_text(row[key]) for row in rows))) for key in rows[0]}
    parts = [[first]]
    for key in others:
        if len(parts[-1]) > 1 and sum(space[name] for name in (*parts[-1], key)) - 1 > width:
            parts.append([first])
        parts[-1].append(key)
    return parts
