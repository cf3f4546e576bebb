"""Write `report.html` of a run, or of the folds of a cross-validation: one file to read, print or send.

Every part is optional: a page shows what the folder holds."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from src.kit.config import UserError
from src.kit.report.advice import advice
from src.kit.report.figures import draw_folds
from src.kit.report.parts import (
    card,
    details,
    duration,
    escaped,
    pairs,
    picture,
    preformatted,
    section,
    side_by_side,
    table,
)
from src.kit.run import read_info, read_json, read_rows, write_json
from src.kit.storage import read_layers, sort_paths, write_csv, write_text

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = Path(__file__).with_name("report_template.html")
CURVES = ("loss", "metrics", "learning-rate")
PLACED = (*CURVES, "training-images", "layers")  # pictures that have a section
OF_SPLITS = ("curves", "confusion", "predictions", "samples")  # and those of a split
SPLITS = {"test": "Test split", "val": "Validation split"}
VIEWS = {f"{split}-tta": f"{title}, in several views" for split, title in SPLITS.items()}
MOST_CONFUSED = 10
MOST_IMPORTANT = 20
NUMBERS = ("rmse", "r2")  # scores that are not percentages
HEADLINES = ("accuracy", "f1_macro", "miou", "mask_map50", "map50", "map", *NUMBERS)  # those that were measured


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder atomically and return its path."""
    info, rows = read_info(run_dir), read_rows(run_dir / "metrics.jsonl")
    if info.get("status") == "running":  # the report is part of the run, or the run was killed
        del info["status"]
    titles = SPLITS | VIEWS
    found = {split: read_evaluation(run_dir / f"evaluation-{split}.json") for split in sorted(titles)}
    evaluations = {split: evaluation for split, evaluation in found.items() if evaluation}
    folder = run_dir / "pictures"
    known = [*PLACED, *(f"{split}-{name}" for split in SPLITS for name in OF_SPLITS)]
    others = [path for path in sort_paths(folder.glob("*.png")) if path.stem not in known]
    full = run_dir.resolve()
    short = full.relative_to(ROOT) if full.is_relative_to(ROOT) else full
    command = f"python scripts/train.py --from {short.as_posix()}"
    sections = [
        section(
            "Curves",
            side_by_side([folder / f"{name}.png" for name in CURVES], "chart"),
            details("All epochs", table(rows)),
        ),
        *(evaluation_section(titles[split], split, evaluation, folder) for split, evaluation in evaluations.items()),
        section("Data", picture(folder / "training-images.png", "photo")),
        section("More pictures", side_by_side(others, "photo")),
        section(
            "Network",
            picture(run_dir / "model_graph.png", "chart"),
            details("All layers", preformatted(run_dir / "model.txt")),
        ),
        section("Inside the network", picture(folder / "layers.png", "chart"), last_layers(run_dir)),
        section("Configuration", preformatted(run_dir / "config.yaml")),
        section("Environment", pairs({key: value for key, value in info.items() if key != "command"})),
        section("Repeat this run", f"<pre>{escaped(command)}</pre>", started_with(info)),
    ]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escaped(run_dir.name),
        subtitle=escaped(" · ".join(str(info[key]) for key in ("framework", "started", "status") if info.get(key))),
        cards="".join(headline(info, rows, evaluations)),
        advice=advice_box(rows, evaluations.get("val", {})),
        sections="\n".join(sections),
    )
    return write_text(run_dir / "report.html", page)


def last_layers(run_dir: Path) -> str:
    """Return a table of the last record of layers.jsonl."""
    rows = read_layers(run_dir)
    if not rows:
        return ""
    listed = [{"layer": name, **each} for name, each in rows[-1]["layers"].items()]
    columns = list(dict.fromkeys(key for row in listed for key in row))
    shown = [{key: short(row.get(key)) for key in columns} for row in listed]
    return details(f"All layers at step {rows[-1]['step']}", table(shown))


def short(value: Any) -> Any:
    """Write a number with three digits that count, however small it is."""
    return f"{value:.3g}" if isinstance(value, float) else value


def read_evaluation(path: Path) -> dict[str, Any]:
    """A split's evaluation, or an empty mapping if there is none.

    Raises:
        UserError: it is damaged.
    """
    found = read_json(path)
    wrong = [name for name in HEADLINES if not isinstance(found.get(name, 0), int | float)]
    rows, matrix = found.get("per_class", []), found.get("confusion_matrix", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        wrong.append("per_class")
    if not is_confusion(matrix, confusion_classes(found)):
        wrong.append("confusion_matrix")
    if wrong:
        raise UserError(f"{path} is damaged ({wrong[0]}): delete it, and evaluate the run again.")
    return found


def confusion_classes(evaluation: Mapping[str, Any]) -> Any:
    """The names of a confusion matrix's rows and columns."""
    return evaluation.get("confusion_classes", evaluation.get("classes", []))


def is_confusion(matrix: Any, classes: Any) -> bool:
    """Whether a file's confusion matrix holds counts of the classes that it names."""
    if not isinstance(matrix, list) or not isinstance(classes, list) or len(matrix) > len(classes):
        return False
    return all(
        isinstance(row, list) and len(row) <= len(classes) and all(isinstance(count, int) for count in row)
        for row in matrix
    )


def headline(info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Any]) -> list[str]:
    """Return the cards at the top: the task's main scores first, on the test split if they have been measured."""
    cards = []
    for split, name in [("test", name) for name in HEADLINES] + [("val", HEADLINES[0])]:
        if name in evaluations.get(split, {}):
            cards.append(card(score(name, evaluations[split][name]), f"{split} {name.replace('_', ' ')}"))
    last = next((name for name in HEADLINES if rows and f"val/{name}" in rows[-1]), None)
    if not evaluations and last:
        cards.append(card(score(last, rows[-1][f"val/{last}"]), f"val {last}, last epoch"))
    if rows:
        epochs = rows[-1].get("epoch", len(rows))
        cards.append(card(str(epochs), "epoch" if epochs == 1 else "epochs"))
    if "duration_s" in info:
        cards.append(card(duration(info["duration_s"]), "duration"))
    if "parameters" in info:
        cards.append(card(f"{info['parameters']:,}", "parameters"))
    return cards


def score(name: str, value: float) -> str:
    """Write a score as a percentage, or as a plain number."""
    return f"{value:.4g}" if name in NUMBERS else f"{value:.2%}"


def advice_box(rows: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> str:
    """Return the advice on the curves, green if there is nothing to do."""
    if not rows:
        return ""
    verdict, colon, rest = advice(rows, evaluation).partition(":")
    kind = "advice good" if verdict in ("Converged", "Finished") else "advice"
    return f'<p class="{kind}"><b>{escaped(verdict)}{colon}</b>{escaped(rest)}</p>'


def evaluation_section(title: str, split: str, evaluation: Mapping[str, Any], folder: Path) -> str:
    """Return the numbers and pictures of one split."""
    numbers = {key: value for key, value in evaluation.items() if not isinstance(value, list | dict)}
    return section(
        title,
        pairs(numbers),
        beside(evaluation),
        picture(folder / f"{split}-curves.png", "chart"),
        picture(folder / f"{split}-confusion.png", "chart"),
        confusions(evaluation),
        picture(folder / f"{split}-predictions.png", "chart"),
        picture(folder / f"{split}-samples.png", "photo"),
        "<h3>Each class</h3>" + table(evaluation["per_class"]) if evaluation.get("per_class") else "",
    )


def beside(evaluation: Mapping[str, Any]) -> str:
    """Return the scores of other models next to the run's, and what each input contributes."""
    rows = [
        {"model": name, **scores} for name, scores in {"this run": evaluation, **evaluation.get("beside", {})}.items()
    ]
    names = list(rows[-1])
    shown = [{name: row.get(name) for name in names} for row in rows]
    parts = ["<h3>Beside other models</h3>" + table(shown)] if len(rows) > 1 else []
    if important := list(evaluation.get("importance", {}).items())[:MOST_IMPORTANT]:
        losses = [{"column": name, "score lost when it is shuffled": loss} for name, loss in important]
        parts.append("<h3>Most important columns</h3>" + table(losses))
    return "".join(parts)


def confusions(evaluation: Mapping[str, Any]) -> str:
    """Return the pairs of classes that were confused most often."""
    classes, matrix = confusion_classes(evaluation), evaluation.get("confusion_matrix", [])
    cells = [(count, i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j and count]
    worst = sorted(cells, key=lambda cell: -cell[0])[:MOST_CONFUSED]
    rows = [{"true class": classes[i], "predicted as": classes[j], "samples": count} for count, i, j in worst]
    return "<h3>Most often confused</h3>" + table(rows) if rows else ""


def started_with(info: Mapping[str, Any]) -> str:
    """Return the command that started the run."""
    command = info.get("command")
    words = " ".join(command) if isinstance(command, list) else command
    return f"<h3>Started with</h3><pre>{escaped(words)}</pre>" if words else ""


def collect_folds(runs: Sequence[Path]) -> dict[str, Any]:
    """Collect the scores of the folds' runs.

    Returns:
        folds: their number; runs: their folders' names; scores: split -> score -> mean, std (with k - 1 in the
        denominator) and values (one per fold).
    """
    scores: dict[str, dict[str, Any]] = {}
    evaluations = {split: [read_evaluation(run / f"evaluation-{split}.json") for run in runs] for split in SPLITS}
    every = [evaluation for rows in evaluations.values() for evaluation in rows]
    # a score is None if a fold has nothing to score
    names = [name for name in every[0] if all(isinstance(evaluation.get(name), float) for evaluation in every)]
    for split in SPLITS:
        columns = {name: [evaluation[name] for evaluation in evaluations[split]] for name in names}
        scores[split] = {
            name: {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values}
            for name, values in columns.items()
        }
    return {"folds": len(runs), "runs": [run.name for run in runs], "scores": scores}


def write_fold_report(folder: Path, result: Mapping[str, Any]) -> None:
    """Write folds.csv, the figure, report.html and finally folds.json into `folder`, and print the table."""
    rows = table_rows(result)
    write_csv(folder / "folds.csv", rows)
    width = max(20, *(len(row["score"]) for row in rows))
    for row in rows:
        sys.stdout.write(f"{row['split']:<5} {row['score']:<{width}} {row['mean']:.4f} ± {row['std']:.4f}\n")
    draw_folds(result, folder / "pictures" / "folds.png")
    test = result["scores"]["test"]
    first = list(test.items())[:1]
    cards = [card(f"{score(name, row['mean'])} ± {score(name, row['std'])}", f"test {name}") for name, row in first]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escaped(folder.name),
        subtitle=escaped(f"{result['folds']} folds: mean and standard deviation"),
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
    write_text(folder / "report.html", page)
    write_json(folder / "folds.json", result)


def table_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per score and split, with a column per fold."""
    return [
        {"split": split, "score": name, "mean": row["mean"], "std": row["std"]}
        | {f"fold {number}": value for number, value in enumerate(row["values"], 1)}
        for split, scores in result["scores"].items()
        for name, row in scores.items()
    ]
