"""A narrow network with and without a teacher, and with and without averaged weights: test accuracies of paired runs.

    python benchmarks/distill.py                       # in the folder of a generated project with both frameworks
    python benchmarks/distill.py digits lightning      # some of: digits, cifar10, ema; lightning, paddle

CIFAR-10 is read from data/cifar10; 1,000 of its images and 180 digits are trained on. Each seed has its own split, and
a pair of runs has the same split, first weights and batches. Teachers are trained in Lightning, also for students in
Paddle; on CIFAR-10 with 10,000 images, since one of the student's own 1,000 taught it nothing.
Prints Markdown tables; rows are kept in outputs/distill/rows.jsonl, so that a stopped bench goes on where it was.
"""

import json
import math
import statistics
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path.cwd()))

from src.kit.config import load_config
from src.kit.run import Run
from src.kit.training import Experiment, find_checkpoint, load_backend, load_trainer

OUTPUT = Path("outputs") / "distill"
ROWS = OUTPUT / "rows.jsonl"
SUBSET = ["data=cifar10", "data.val_fraction=0.98", "data.batch_size=64", "trainer.limit_val_batches=4"]
FEW_DIGITS = ["data=digits", "data.val_fraction=0.45", "data.test_fraction=0.45"]
TEACHING = ["distill.temperature=2", "distill.weight=1.0"]  # the teacher's answers alone: they are soft for blends too


class Pairing(NamedTuple):
    """Words that both runs of a pair share, the seeds, and the teacher's own words."""

    shared: list[str]
    seeds: range
    teacher: list[str]


PAIRINGS = {
    "digits": Pairing(
        [*FEW_DIGITS, "model.width=8", "trainer.max_epochs=400", "data.mixup_alpha=1.0"],
        range(5),
        ["model.width=32", "model.dropout=0.3", "trainer.max_epochs=200", "data.mixup_alpha=0.0"],
    ),
    "cifar10": Pairing(
        [*SUBSET, "trainer.max_epochs=60", "data.mixup_alpha=1.0"],
        range(5),
        [
            *("data.val_fraction=0.8", "data.batch_size=128", "data.mixup_alpha=0.0"),
            *("model.width=24", "model.dropout=0.3", "trainer.max_epochs=16"),
        ],
    ),
}
AVERAGED = {"one_cycle": [], "constant": ["scheduler=constant"]}
FRAMEWORKS = ("lightning", "paddle")


def main(argv: list[str]) -> int:
    """Train what has no row yet, and print all of them."""
    parts = [name for name in argv if name not in FRAMEWORKS] or [*PAIRINGS, "ema"]
    frameworks = [name for name in argv if name in FRAMEWORKS] or FRAMEWORKS
    if unknown := [name for name in parts if name not in (*PAIRINGS, "ema")]:
        print(f"There is no {', '.join(unknown)}. Available: {', '.join((*PAIRINGS, 'ema', *FRAMEWORKS))}.")
        return 1
    OUTPUT.mkdir(parents=True, exist_ok=True)
    taught = [(name, framework) for name in PAIRINGS if name in parts for framework in frameworks]
    if taught:
        print("| data | student | teacher | student alone | with teacher | difference | better |", flush=True)
        print("|---|---|---:|---:|---:|---:|---:|")
        for name, framework in taught:
            print(distillation(name, framework), flush=True)
    if "ema" in parts:
        print("\n| framework | schedule | without | `trainer.ema=0.99` | difference | better |")
        print("|---|---|---:|---:|---:|---:|")
        for framework in frameworks:
            for schedule in AVERAGED:
                print(averaging(framework, schedule), flush=True)
    return 0


def distillation(name: str, framework: str) -> str:
    """One row: students with and without their teachers."""
    shared, seeds, own = PAIRINGS[name]
    teachers, alone, taught = [], [], []
    for seed in seeds:
        run, accuracy = train([*shared, *own, "framework=lightning", f"seed={seed}"])
        words = [*shared, f"framework={framework}", f"seed={seed}"]
        teachers.append(accuracy)
        alone.append(train(words)[1])
        taught.append(train([*words, f"distill.teacher={run}", *TEACHING])[1])
    return f"| {name} | {framework} | {describe(teachers)} | {compare(alone, taught)} |"


def averaging(framework: str, schedule: str) -> str:
    """One row: the same runs with and without averages."""
    shared = [*SUBSET, "trainer.max_epochs=30", *AVERAGED[schedule], f"framework={framework}"]
    words = [[*shared, f"seed={seed}"] for seed in range(5)]
    plain, averaged = ([train([*each, *more])[1] for each in words] for more in ([], ["trainer.ema=0.99"]))
    return f"| {framework} | {schedule} | {compare(plain, averaged)} |"


def describe(values: list[float]) -> str:
    """Mean and standard deviation in per cent."""
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def compare(before: list[float], after: list[float]) -> str:
    """Both, the mean of the paired differences with its standard error, and how many are above 0."""
    differences = [100 * (second - first) for first, second in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    better = f"{sum(each > 0 for each in differences)} of {len(differences)}"
    return f"{describe(before)} | {describe(after)} | {statistics.mean(differences):+.2f} ± {error:.2f} | {better}"


def train(words: list[str]) -> tuple[str, float]:
    """The run's folder and the test accuracy of its best checkpoint; from the rows, if it has been trained already."""
    key = " ".join(words)
    if key in (rows := read_rows()):
        return rows[key]
    cfg = load_config([*words, "model=small_cnn", "tracker=none", f"output_dir={OUTPUT.as_posix()}"])
    experiment = Experiment(cfg)
    with Run(cfg) as run:
        load_trainer(cfg).fit(experiment, run)
    backend = load_backend(cfg)
    network = backend.load_network(experiment, find_checkpoint(run.path, "best"))
    accuracy = experiment.score(backend.predict(experiment, network, "test"))["accuracy"]
    rows[key] = (run.path.as_posix(), accuracy)
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps([key, *rows[key]]) + "\n")
    return rows[key]


@cache
def read_rows() -> dict[str, tuple[str, float]]:
    """Words -> run and accuracy, of what has been trained."""
    lines = ROWS.read_text("utf-8").splitlines() if ROWS.is_file() else []
    return {key: (run, accuracy) for key, run, accuracy in map(json.loads, lines)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
