"""What the folds of a cross-validation say together: folds.json, folds.csv, a picture and a page."""

import csv
import io
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from src.kit.report.html import card, preformatted, section, side_by_side, table, text
from src.kit.run import read_json, write_json

TEMPLATE = Path(__file__).with_name("report_template.html")
SPLITS = ("test", "val")


def collect(runs: Sequence[Path]) -> dict[str, Any]:
    """Read the scores of the folds' runs.

    Returns:
        folds: their number; runs: their folders' names; scores: split -> score -> mean, std (of the sample: the sum of
        squares is divided by k - 1) and values (one for each fold).
    """
    scores: dict[str, dict[str, Any]] = {}
    evaluations = {split: [read_json(run / f"evaluation-{split}.json") for run in runs] for split in SPLITS}
    every = [evaluation for rows in evaluations.values() for evaluation in rows]
    # a score may be None where a fold has nothing to score, such as no large objects
    names = [name for name in every[0] if all(isinstance(evaluation.get(name), float) for evaluation in every)]
    for split in SPLITS:
        columns = {name: [evaluation[name] for evaluation in evaluations[split]] for name in names}
        scores[split] = {
            name: {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values}
            for name, values in columns.items()
        }
    return {"folds": len(runs), "runs": [run.name for run in runs], "scores": scores}


def write_fold_report(folder: Path, result: Mapping[str, Any]) -> None:
    """Write all files into `folder`, folds.json last, and print the table."""
    rows = table_rows(result)
    content = io.StringIO()
    writer = csv.DictWriter(content, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace(folder / "folds.csv", content.getvalue())
    for row in rows:
        sys.stdout.write(f"{row['split']:<5} {row['score']:<20} {row['mean']:.4f} ± {row['std']:.4f}\n")
    draw_folds(result, folder / "pictures" / "folds.png")
    test = result["scores"]["test"]
    cards = [card(f"{row['mean']:.2%} ± {row['std']:.2%}", f"test {name}") for name, row in list(test.items())[:1]]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(folder.name),
        subtitle=text(f"{result['folds']} folds: mean and standard deviation"),
        cards="".join([*cards, card(str(result["folds"]), "folds")]),
        advice="",
        sections="\n".join(
            [
                section("Scores", table(rows), side_by_side([folder / "pictures" / "folds.png"], "chart")),
                section("Runs", *(f'<p><a href="{name}/report.html">{name}</a></p>' for name in result["runs"])),
                section("Configuration", preformatted(folder / "config.yaml")),
            ]
        ),
    )
    replace(folder / "report.html", page)
    write_json(folder / "folds.json", result)


def table_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each score of each split, with a column for each fold."""
    return [
        {"split": split, "score": name, "mean": row["mean"], "std": row["std"]}
        | {f"fold {number}": value for number, value in enumerate(row["values"], 1)}
        for split, scores in result["scores"].items()
        for name, row in scores.items()
    ]


def draw_folds(result: Mapping[str, Any], path: Path) -> Path:
    """Draw every score: a dot for each fold, and a bar of one standard deviation to both sides of the mean."""
    from src.kit.report.plots import BLUE, VERMILLION, new_figure, save

    names = list(result["scores"]["test"])
    figure = new_figure(7.0, 0.5 * len(names) + 1.3)
    axes = figure.add_subplot()
    for split, colour, shift in (("test", BLUE, -0.14), ("val", VERMILLION, 0.14)):
        rows = [result["scores"][split][name] for name in names]
        places = [place + shift for place in range(len(names))]
        means, stds = [row["mean"] for row in rows], [row["std"] for row in rows]
        axes.errorbar(means, places, xerr=stds, fmt="|", color=colour, capsize=4, linewidth=2, label=split)
        for place, row in zip(places, rows, strict=True):
            axes.plot(row["values"], [place] * len(row["values"]), "o", color=colour, markersize=4, alpha=0.5)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_title(f"Scores of {result['folds']} folds")
    axes.grid(axis="x")
    axes.legend()
    return save(figure, path)


def replace(path: Path, content: str) -> None:
    """Replace a text file as a whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)
