"""Write a run's `report.html`: one file with everything in it, to look at, to print and to send.

Every part is optional: the page shows what the run folder has.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from src.kit.report.advice import advice
from src.kit.report.html import card, duration, fold, pairs, picture, preformatted, section, side_by_side, table, text
from src.kit.run import read_json, read_rows

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = Path(__file__).with_name("report_template.html")
CURVES = ("loss", "metrics", "learning-rate")
SPLITS = {"test": "Test split", "val": "Validation split"}
MOST_CONFUSED = 10
NUMBERS = ("rmse", "r2")  # scores that are no shares of anything
HEADLINES = ("accuracy", "f1_macro", "miou", "mask_map50", "map50", "map", *NUMBERS)  # what the task has, in this order


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder, whole or not at all, and return its path."""
    info, rows = read_json(run_dir / "run.json"), read_rows(run_dir / "metrics.jsonl")
    evaluations = {split: found for split in SPLITS if (found := read_json(run_dir / f"evaluation-{split}.json"))}
    folder = run_dir / "pictures"
    known = [f"{split}-{name}" for split in SPLITS for name in ("confusion", "predictions", "samples")] + [
        *CURVES,
        "training-images",
    ]
    others = [path for path in sorted(folder.glob("*.png")) if path.stem not in known]
    place = run_dir.resolve()
    place = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
    command = f"python scripts/train.py --from {place.as_posix()}"
    config = run_dir / "config.yaml"
    summary = run_dir / "model.txt"
    sections = [
        section(
            "Curves",
            side_by_side([folder / f"{name}.png" for name in CURVES], "chart"),
            fold("All epochs", table(rows)),
        ),
        *(evaluation_section(SPLITS[split], split, evaluation, folder) for split, evaluation in evaluations.items()),
        section("Data", picture(folder / "training-images.png", "photo")),
        section("More pictures", side_by_side(others, "photo")),
        section("Network", picture(run_dir / "model_graph.png", "chart"), fold("All layers", preformatted(summary))),
        section("Configuration", preformatted(config)),
        section("Environment", pairs({key: value for key, value in info.items() if key != "command"})),
        section("How to repeat this run", f"<pre>{text(command)}</pre>", started_with(info)),
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(run_dir.name),
        subtitle=text(" · ".join(str(info[key]) for key in ("framework", "started", "status") if info.get(key))),
        cards="".join(headline(info, rows, evaluations)),
        advice=advice_box(rows),
        sections="\n".join(sections),
    )
    path = run_dir / "report.html"
    partial = run_dir / ".report.html.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def headline(info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Any]) -> list[str]:
    """Return the cards on top: the task's main scores first, of the test split where they have been measured."""
    cards = []
    for split, name in [("test", name) for name in HEADLINES] + [("val", HEADLINES[0])]:
        if name in evaluations.get(split, {}):
            cards.append(card(score(name, evaluations[split][name]), f"{split} {name.replace('_', ' ')}"))
    last = next((name for name in HEADLINES if rows and f"val/{name}" in rows[-1]), None)
    if not evaluations and last:
        cards.append(card(score(last, rows[-1][f"val/{last}"]), f"val {last}, last epoch"))
    if rows:
        cards.append(card(str(rows[-1].get("epoch", len(rows))), "epochs"))
    if "duration_s" in info:
        cards.append(card(duration(info["duration_s"]), "duration"))
    if "parameters" in info:
        cards.append(card(f"{info['parameters']:,}", "parameters"))
    return cards


def score(name: str, value: float) -> str:
    """Write a score as a share, or as the number that it is."""
    return f"{value:.4g}" if name in NUMBERS else f"{value:.2%}"


def advice_box(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the curves say, green where nothing is to be done."""
    if not rows:
        return ""
    verdict, colon, rest = advice(rows).partition(":")
    kind = "advice good" if verdict == "Converged" else "advice"
    return f'<p class="{kind}"><b>{text(verdict)}{colon}</b>{text(rest)}</p>'


def evaluation_section(title: str, split: str, evaluation: Mapping[str, Any], folder: Path) -> str:
    """Return the numbers and pictures of one split."""
    numbers = {key: value for key, value in evaluation.items() if not isinstance(value, list | dict)}
    return section(
        title,
        pairs(numbers),
        picture(folder / f"{split}-confusion.png", "chart"),
        confusions(evaluation),
        picture(folder / f"{split}-predictions.png", "chart"),
        picture(folder / f"{split}-samples.png", "photo"),
        "<h3>Each class</h3>" + table(evaluation["per_class"]) if evaluation.get("per_class") else "",
    )


def confusions(evaluation: Mapping[str, Any]) -> str:
    """Return the pairs of classes that were mistaken for one another most often."""
    classes, matrix = evaluation.get("classes", []), evaluation.get("confusion_matrix", [])
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    worst = sorted(cells, key=lambda cell: -cell[0])[:MOST_CONFUSED]
    rows = [{"true class": classes[i], "predicted as": classes[j], "samples": count} for count, i, j in worst]
    return "<h3>Most often confused</h3>" + table(rows) if rows else ""


def started_with(info: Mapping[str, Any]) -> str:
    """Return the command that the run was started with."""
    command = info.get("command")
    words = " ".join(command) if isinstance(command, list) else command
    return f"<h3>It was started with</h3><pre>{text(words)}</pre>" if words else ""
