"""From a trained run to predictions without a framework: the steps that `nox -s smoke` takes after a training.

predict -> export -> INT8 -> predict from both exports in an environment without a framework -> serve -> compare
"""

import base64
import csv
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sklearn.datasets import load_breast_cancer

from tests import make_data
from tests.render import ROOT

SAMPLES = 6
OBJECTS = 20  # of each image that are compared
SURE_OF_NOTHING = ["--score", "0.001"]  # detectors that saw a few batches are sure of no object
TOLERANCE = 2e-3  # of scores, between a run and its ONNX file
LOSS = 0.05  # of the run's score, in INT8: one epoch leaves many samples near the boundary
WITH_FRAMEWORK = """
import sys
from scripts import export, predict
run, samples, *options = sys.argv[1:]
predict.main([run, samples, "--out", f"{run}/predicted", "--batch", "4", *options])
export.main([run, "--int8"])
"""
WITHOUT_FRAMEWORK = """
import importlib.util, json, statistics, sys, time
found = [name for name in ("torch", "paddle", "pytorch_lightning") if importlib.util.find_spec(name)]
assert not found, f"this environment has {found}"
import numpy as np
from scripts import predict
from src.kit.inference import Predictor
whole, coarse, samples, *options = sys.argv[1:]
medians = []
for folder in (whole, coarse):
    predict.main([folder, samples, "--out", f"{folder}/predicted", "--batch", "4", *options])
    predictor = Predictor.open(folder, threads=1)
    one, taken = np.zeros((1, *predictor.card.input["shape"]), np.float32), []
    for _ in range(9):
        start = time.perf_counter()
        predictor.compute(one)
        taken.append(1000 * (time.perf_counter() - start))
    medians.append(statistics.median(taken))
print(json.dumps(medians))
"""


@dataclass
class Chain:
    """What became of one run; scores on the validation split, sizes in MB, times in milliseconds an image."""

    task: str
    framework: str
    scores: dict[str, float] = field(default_factory=dict)  # of "run", "float32" and "int8"
    difference: float | None = None  # largest, between scores that the run, its ONNX file and the service give
    sizes: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    failure: str = ""


def requirements() -> list[str]:
    """The lines of an environment that predicts with exports: all that projects need but frameworks and trackers."""
    packages = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["packages"]
    return [
        *packages["common"],
        *(line for lines in packages["task"].values() for line in lines),
        *packages["extras"]["serving"],
    ]


def prove(chain: Chain, score: str, run: Path, pythons: tuple[Path, Path], call: Callable[..., Any]) -> Chain:
    """Fill in `chain`.

    Args:
        score: the name of the task's score.
        run: the folder of a run, in the project's outputs/.
        pythons: of the project's environment, and of one without a framework.
        call: runs a command in a folder; `stdout` is a file for what it prints.
    """
    project = run.parents[1]
    samples, exports = write_samples(chain.task, project), [run / "export", run / "export" / "int8"]
    options = SURE_OF_NOTHING if chain.task in ("detection", "instance_segmentation") else []
    try:
        printed = run / "exported.txt"
        call([pythons[0], "-c", WITH_FRAMEWORK, run, samples, *options], project, stdout=printed)
        for line in printed.read_text("utf-8").splitlines():
            name, *rest = line.split()
            if name in ("float32", "int8"):
                chain.scores[name] = float(rest[rest.index(score) + 1])
        chain.scores["run"] = json.loads((run / "evaluation-val.json").read_text("utf-8"))[score]
        chain.sizes = [sum(path.stat().st_size for path in folder.glob("*.onnx")) / 1e6 for folder in exports]
        timed = run / "timed.txt"
        call([pythons[1], "-c", WITHOUT_FRAMEWORK, *exports, samples, *options], project, stdout=timed)
        chain.milliseconds = json.loads(timed.read_text("utf-8").splitlines()[-1])
        served = serve(run / "export", samples, pythons[1]) if (project / "scripts" / "serve.py").is_file() else None
        chain.failure = compare(chain, run, served)
    except subprocess.CalledProcessError as error:
        step = "prediction and export" if error.cmd[2] == WITH_FRAMEWORK else "prediction without a framework"
        chain.failure = f"{step} gave {error.returncode}"
    except (OSError, KeyError, ValueError) as error:
        chain.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return chain


def write_samples(task: str, project: Path) -> Path:
    """A folder of images or a CSV to predict."""
    if task == "tabular":
        table = load_breast_cancer()
        with (project / "rows.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([table.feature_names, *table.data[:SAMPLES]])
        return project / "rows.csv"
    folder = project / f"samples-{task}"
    folder.mkdir(exist_ok=True)
    if task == "classification":
        for number, image in enumerate(make_data.digits(8)[0][:SAMPLES]):
            make_data.Image.fromarray(image).save(folder / f"{number}.png")
    else:
        for path in sorted((project / "data" / "digit_scenes" / "val").glob("*.jpg"))[:SAMPLES]:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def serve(export: Path, samples: Path, python: Path) -> list[dict[str, Any]]:
    """What `scripts/serve.py` answers for the samples, in their order."""
    if samples.is_dir():
        images = [base64.b64encode(path.read_bytes()).decode() for path in sorted(samples.iterdir())]
        body = json.dumps({"images": images})
    else:
        with samples.open(encoding="utf-8", newline="") as file:
            body = json.dumps({"rows": [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]})
    command = [str(python), "scripts/serve.py", str(export), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        command, cwd=export.parents[2], env=environment, text=True, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            address = next((word for word in process.stdout.readline().split() if word.startswith("http://")), "")
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"{address}/predict", body.encode(), headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
        finally:
            process.terminate()
    return predictions


def scores_of(prediction: dict[str, Any]) -> list[float]:
    """A served prediction's scores, as in `read_scores`."""
    parts = prediction.get("objects", prediction.get("classes", [prediction]))
    return sorted((part["score"] for part in parts), reverse=True)[:OBJECTS]


def compare(chain: Chain, run: Path, served: list[dict[str, Any]] | None) -> str:
    """What is wrong; empty if the run, its exports and the service agree."""
    expected, exported, coarse = (
        read_scores(folder / "predicted" / "predictions.csv") for folder in (run, run / "export", run / "export/int8")
    )
    if not len(expected) == len(exported) == len(coarse) == SAMPLES:
        return f"{len(expected)}, {len(exported)} and {len(coarse)} of {SAMPLES} samples were predicted"
    pairs = [(expected[name], exported.get(name, [])) for name in expected]
    if served is not None:
        least = read_card(run / "export").get("score", 0.0)  # the service leaves out what is less sure
        pairs += [
            ([score for score in exported[name] if score >= least], scores_of(each))
            for name, each in zip(sorted(exported), served, strict=True)
        ]
    if any(len(one) != len(other) for one, other in pairs) or not any(expected.values()):
        return "the run, its export and the service do not predict the same number of objects"
    differences = [abs(first - second) for one, other in pairs for first, second in zip(one, other, strict=True)]
    chain.difference = max(differences)
    wrong = {
        f"scores differ by {chain.difference:.1e}": not chain.difference <= TOLERANCE,
        "ONNX scores otherwise than the run": abs(chain.scores["float32"] - chain.scores["run"]) > TOLERANCE,
        "INT8 loses too much": chain.scores["run"] - chain.scores["int8"] > LOSS,
        "INT8 is not smaller": chain.sizes[1] >= chain.sizes[0],
    }
    return "; ".join(text for text, is_so in wrong.items() if is_so)


def read_card(folder: Path) -> dict[str, Any]:
    """What the card says of the output."""
    output: dict[str, Any] = json.loads((folder / "card.json").read_text("utf-8"))["output"]
    return output


def read_scores(path: Path) -> dict[str, list[float]]:
    """Sample -> its scores in predictions.csv, highest first, at most `OBJECTS`."""
    found: dict[str, list[float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = row.get("row") or row["file"]
            found.setdefault(name, []).extend([float(row["score"])] if row["score"] else [])
    return {name: sorted(scores, reverse=True)[:OBJECTS] for name, scores in found.items()}


def table(chains: list[Chain]) -> str:
    """The chains as a Markdown table."""
    lines = [
        "| task | framework | score of the run | of ONNX | of INT8 | largest difference | MB, MB of INT8 "
        "| ms, ms of INT8 | |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for chain in chains:
        scores = [f"{chain.scores[name]:.3f}" if name in chain.scores else "-" for name in ("run", "float32", "int8")]
        difference = "-" if chain.difference is None else f"{chain.difference:.1e}"
        sizes = ", ".join(f"{size:.2f}" for size in chain.sizes) or "-"
        times = ", ".join(f"{each:.2f}" for each in chain.milliseconds) or "-"
        lines.append(
            f"| {chain.task} | {chain.framework} | {' | '.join(scores)} | {difference} | {sizes} | {times} "
            f"| {chain.failure or 'ok'} |"
        )
    return "\n".join(lines)
