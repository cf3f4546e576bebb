"""Scores, sizes, times and memory of exported networks in float32, bf16 and INT8, beside their targets.

python benchmarks/edge.py                     # in the folder of a generated project with both frameworks
python benchmarks/edge.py digits "CIFAR-10"   # some of the networks

Each network is trained shortly, in several steps where training at the full size would take long, then exported and
optimized by the project's own scripts. Runs are kept in outputs/edge, so a bench that was stopped goes on where it was.
Prints two Markdown tables.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUTPUT = Path("outputs") / "edge"
RESNET = ["model=resnet18", "model.stem=imagenet"]
# network -> the keys of each training; all but the first start from the weights of the one before
NETWORKS: dict[str, list[list[str]]] = {
    "digits": [["data=digits"]],
    "digit scenes": [
        ["experiment=digit_scenes_detection"],
        [
            *("experiment=digit_scenes_detection", "data.image_size=320", "trainer.max_epochs=1"),
            *("trainer.limit_train_batches=0.4", "optimizer.lr=0.001"),
        ],
    ],
    # a tenth of the training images: four minutes where all of them would take most of an hour
    "CIFAR-10": [
        [*RESNET, "data=cifar10", "data.batch_size=64", "trainer.max_epochs=5", "trainer.limit_train_batches=0.2"]
    ],
    "ResNet-18 at 224": [
        [*RESNET, "data=digits", "data.image_size=64", "data.batch_size=32", "trainer.max_epochs=4"],
        [
            *RESNET,
            *("data=digits", "data.image_size=224", "data.batch_size=16", "trainer.max_epochs=1"),
            *("trainer.limit_train_batches=24", "optimizer.lr=0.0003"),
        ],
    ],
}
DATA = {"digit scenes": "digit_scenes", "CIFAR-10": "cifar10"}
TITLES = {
    "digits": "small CNN, digits at 8",
    "digit scenes": "YOLOv10n, digit scenes at 320",
    "CIFAR-10": "ResNet-18, CIFAR-10 at 32",
    "ResNet-18 at 224": "ResNet-18, digits at 224",
}
FAST = ("digit scenes", "ResNet-18 at 224")  # those that must give 100 results a second
MILLISECONDS, PER_SECOND, MEGABYTES, LOSS = 50, 100, 1000, 0.01
SMALLER = {True: 3.9, False: 3.0}  # how much smaller INT8 must be, from 10 million parameters and below


def main(argv: Sequence[str]) -> int:
    """Train what has not been trained, measure, and print the tables."""
    if unknown := [name for name in argv if name not in NETWORKS]:
        print(f"There is no {', '.join(unknown)}. Available: {', '.join(NETWORKS)}.")
        return 1
    names = list(argv) or list(NETWORKS)
    found = {name: optimize(train(name)) for name in names}
    print("\n".join([*times(found), "", *targets(found)]))
    return 0


def train(name: str) -> Path:
    """The folder of a network's last run."""
    run = Path()
    for step, keys in enumerate(NETWORKS[name]):
        folder = OUTPUT / f"{name} {step}".replace(" ", "-")
        done = sorted(folder.glob("*/evaluation-test.json"))
        if not done:
            if step == 0 and name in DATA:
                call("scripts/download.py", f"data={DATA[name]}")
            start = [f"model.weights={weights(run).as_posix()}"] if step else []
            call("scripts/train.py", "framework=lightning", "tracker=none", f"output_dir={folder}", *keys, *start)
            done = sorted(folder.glob("*/evaluation-test.json"))
        run = done[-1].parent
    return run


def weights(run: Path) -> Path:
    """The best checkpoint's weights."""
    from src.kit.training import find_checkpoint

    return find_checkpoint(run, "best") / "model.safetensors"


def optimize(run: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Export a run, and optimize it for this processor: all candidates, and the winner with its memory."""
    call("scripts/export.py", str(run), "--format", "onnx")
    call("scripts/optimize_for_edge.py", str(run))
    with (run / "edge-cpu" / "candidates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    winner = json.loads((run / "edge-cpu" / "optimized.json").read_text("utf-8"))
    return rows, {**winner, "parameters": parameters(run / "export" / "model.safetensors")}


def parameters(path: Path) -> int:
    """How many numbers a file of weights holds."""
    from safetensors.numpy import load_file

    return sum(array.size for array in load_file(path).values())


def times(found: dict[str, Any]) -> list[str]:
    """What was measured of each runtime, precision and number of threads."""
    lines = ["| network | runtime | precision | threads | MB | score | p50 ms | CPU ms | per s | CPU ms / first row |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, (rows, winner) in found.items():
        first = float(rows[0]["cpu"])
        for row in rows:
            cpu, clock, size = (float(row[key]) for key in ("cpu", "milliseconds", "megabytes"))
            lines.append(
                f"| {TITLES[name]} | {row['runtime']} | {row['precision']} | {row['threads']} | {size:.2f} "
                f"| {winner['metric']} {float(row['score']):.4f} | {clock:.2f} | {cpu:.2f} "
                f"| {float(row['per_second']):.0f} | {cpu / first:.2f} |"
            )
    return lines


def targets(found: dict[str, Any]) -> list[str]:
    """INT8 in ONNX Runtime and the fastest that keeps the score, beside the targets."""
    lines = ["| network | parameters | smaller | points lost by INT8 | fastest | ms | per s | MB of memory | misses |"]
    lines.append("|---|---:|---:|---:|---|---:|---:|---:|---|")
    for name, (rows, winner) in found.items():
        whole, int8 = (
            next(row for row in rows if (row["runtime"], row["precision"]) == ("onnxruntime", precision))
            for precision in ("f32", "int8")
        )
        smaller = float(whole["megabytes"]) / float(int8["megabytes"])
        lost = float(whole["score"]) - float(int8["score"])
        misses = {
            f"{SMALLER[winner['parameters'] >= 1e7]} times smaller": smaller < SMALLER[winner["parameters"] >= 1e7],
            "one point": lost > LOSS,
            f"{MILLISECONDS} ms": winner["milliseconds"] >= MILLISECONDS,
            f"{PER_SECOND} per s": name in FAST and winner["per_second"] <= PER_SECOND,
            "1 GB": winner["memory_mb"] >= MEGABYTES,
        }
        lines.append(
            f"| {TITLES[name]} | {winner['parameters']:,} | {smaller:.2f} | {100 * lost:.2f} "
            f"| {winner['runtime']} {winner['precision']}, {winner['threads']} threads "
            f"| {winner['milliseconds']:.2f} | {winner['per_second']:.0f} | {winner['memory_mb']:.0f} "
            f"| {', '.join(text for text, missed in misses.items() if missed) or '–'} |"
        )
    return lines


def call(*arguments: str) -> None:
    """Run a command of the project; its output goes to stderr, beside the tables."""
    environment = {**os.environ, "PYTHONPATH": "."}
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr, env=environment)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main(sys.argv[1:]))
