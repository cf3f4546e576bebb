"""Render, install, test, train and evaluate every variant in examples/, and print a table.

nox -s smoke                 # all variants
nox -s smoke -- paddle both  # some of them
nox -s demo                  # the default project, in demo/
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests import history, make_data
from tests.readme import commands
from tests.render import EXAMPLES, ROOT, render

ENVIRONMENTS = ROOT / ".nox" / "environments"
FEW = ["trainer.limit_train_batches=6", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
# task -> its score, the minimum after one epoch, and overrides. Detectors learn nothing in so few batches: this runs
# every step of theirs, and benchmarks/learning.py proves that they learn.
SCORES: dict[str, tuple[str, float, list[str]]] = {
    "classification": ("accuracy", 0.5, ["optimizer.lr=0.01"]),  # guessing gives 0.1
    "detection": ("map50", 0.0, FEW),
    "segmentation": ("miou", 0.0, FEW),
    "instance_segmentation": ("mask_map50", 0.0, FEW),
    "tabular": ("accuracy", 0.7, ["optimizer.lr=0.01"]),  # the larger class alone gives 0.63
}
# The README's commands for a default project.
README_COMMANDS = [command for command in commands(ROOT / "README.md") if command.startswith("python scripts/")]
# additional packages of internals/
FOR_INTERNALS = [
    "hypothesis==6.170.15",
    "pytest-xdist==3.8.0",
    "webdataset==1.0.2",
    "nbclient==0.11.0",
    "ipykernel==7.4.0",
    "openvino==2026.4.1",
    "nncf==3.4.0",
]


@dataclass
class Row:
    """One trained backend of one variant; times in seconds, memory in MiB."""

    variant: str
    seconds: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    memory: float | None = None
    failure: str = ""


def main(argv: list[str]) -> int:
    """Run the named variants, or all; return 1 if one failed or there was none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples/NAME.yml or lightning-updated (default: all)")
    parser.add_argument("--in-place", action="store_true", help="test template/ itself; other arguments are pytest's")
    parser.add_argument("--demo", action="store_true", help="render the default project into demo/ and train it")
    options, _ = parser.parse_known_args(argv)
    if options.demo:
        return demo()
    if options.in_place:
        return test_in_place([argument for argument in argv if argument != "--in-place"])
    variants = {name: partial(run_variant, name, answers or {}, render) for name, answers in EXAMPLES.items()}
    variants = variants and {
        **variants,
        "lightning-updated": partial(run_variant, "lightning-updated", {}, make_updated),
    }
    unknown = [name for name in options.names if name not in variants]
    if unknown or not variants:
        print(f"There is no variant {', '.join(unknown)}. Available: {', '.join(variants)}.")
        return 1
    rows = [row for name in options.names or variants for row in variants[name]()]
    print(table(rows))
    failed = [row for row in rows if row.failure]
    print(f"smoke: {len(rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not rows else 0


def make_updated(project: Path, answers: dict[str, Any]) -> None:
    """A project of an older release with a file of its user, updated to the working tree."""
    history.make_project(project, history.SYNTHETIC, "lightning")
    own = project / "src" / "configs" / "experiment" / "ours.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text("trainer: {max_epochs: 3}\n", "utf-8")
    history.commit_all(project, "our work")
    index = os.environ.get("PACKAGE_INDEX")
    history.update(project, {"package_index": index} if index else {})


def run_variant(name: str, answers: dict[str, Any], make: Callable[[Path, dict[str, Any]], None]) -> list[Row]:
    """Prove one variant in `.nox/variants/<name>`; one row per framework and task."""
    project = ROOT / ".nox" / "variants" / name
    shutil.rmtree(project, ignore_errors=True)
    base = Row(name)
    print(f"--- {name}", flush=True)
    try:
        with timed(base, "render"):
            make(project, answers)
        with timed(base, "install"):
            python = install(project)
        make_data.write(answers.get("dataset", "digits"), project / "data")
        with timed(base, "tests"):
            call([python, "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
    except Exception as error:  # the table reports it, and the other variants still run
        base.failure = " ".join(str(error).split())
        return [base]
    both = answers.get("framework") == "both"
    frameworks = ["lightning", "paddle"] if both else [answers.get("framework", "lightning")]
    task = answers.get("task", "classification")
    tasks = list(SCORES) if task == "all" else [task]
    rows = [
        train(Row(label(name, each, kind, both), dict(base.seconds)), project, python, each, kind)
        for kind in tasks
        for each in frameworks
    ]
    return [*rows, run_readme(project, python)] if name == "lightning" else rows


def run_readme(project: Path, python: Path) -> Row:
    """Run the README's commands in the project that they are for."""
    row = Row("lightning: the README's commands")
    try:
        with timed(row, "train"):
            for command in README_COMMANDS:
                call([python, *command.split()[1:]], project)
    except subprocess.CalledProcessError as error:
        row.failure = f"{' '.join(map(str, error.cmd[1:]))} gave {error.returncode}"
    return row


def label(name: str, framework: str, task: str, both: bool) -> str:
    """The row's name: the variant, framework and task."""
    parts = [framework] * both + [task] * (task != "classification")
    return f"{name}: {', '.join(parts)}" if parts else name


def train(row: Row, project: Path, python: Path, framework: str, task: str) -> Row:
    """Train one epoch, evaluate with the project's own scripts and read their results."""
    score, worst, overrides = SCORES[task]
    preset = [] if task == "classification" else [f"task={task}"]
    try:
        if preset:
            call([python, "scripts/download.py", *preset], project)  # composes the scenes of digits
        with timed(row, "train"):
            row.memory = call(
                [python, "scripts/train.py", f"framework={framework}", *preset, "trainer.max_epochs=1", *overrides],
                project,
            )
        call([python, "scripts/eval.py"], project)
        call([python, "scripts/test.py"], project)
    except subprocess.CalledProcessError as error:
        row.failure = f"{' '.join(map(str, error.cmd[1:]))} gave {error.returncode}"
        return row
    run = max((project / "outputs").glob("*/evaluation-test.json"), key=lambda path: path.stat().st_mtime).parent
    row.score = json.loads((run / "evaluation-test.json").read_text("utf-8"))[score]
    if not worst <= row.score <= 1:
        row.failure = f"{score} {row.score:.3f} is not within {worst} and 1"
    if not (run / "report.html").is_file():
        row.failure = "no report.html"
    return row


def install(project: Path) -> Path:
    """Python of an environment with the project's requirements, shared by projects with equal ones."""
    files = [project / "requirements-cpu.txt", project / "requirements-dev.txt"]
    # named after the requirements without comments
    lines = [line for file in files for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    folder = ENVIRONMENTS / hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [part for file in files for part in ("-r", str(file))]
    if uv := shutil.which("uv"):
        call([uv, "venv", "--quiet", "--python", sys.executable, folder], project)
        call([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *arguments], project)
    else:
        call([sys.executable, "-m", "venv", folder], project)
        call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], project)
    done.touch()
    return python


def call(command: list[Any], folder: Path) -> float | None:
    """Run a command in `folder`, showing its output; return its peak memory in MiB, if the system reports it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    process = subprocess.Popen([str(part) for part in command], cwd=folder, env=environment)
    if not hasattr(os, "wait4"):
        process.wait()
        used = None
    else:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        used = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, [str(part) for part in command])
    return used


class timed:
    """Add the seconds of a `with` block to `row.seconds[name]`."""

    def __init__(self, row: Row, name: str) -> None:
        self.row, self.name = row, name

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.row.seconds[self.name] = time.perf_counter() - self.started


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| variant | render s | install s | tests s | train s | score | peak MiB | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        times = [
            f"{row.seconds[name]:.1f}" if name in row.seconds else "-"
            for name in ("render", "install", "tests", "train")
        ]
        score = "-" if row.score is None else f"{row.score:.3f}"
        memory = "-" if row.memory is None else f"{row.memory:.0f}"
        lines.append(f"| {row.variant} | {' | '.join(times)} | {score} | {memory} | {row.failure or 'ok'} |")
    return "\n".join(lines)


def test_in_place(arguments: list[str]) -> int:
    """Run template/tests and internals/ in template/, in an environment with all frameworks and trackers."""
    packages = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["packages"]
    project = ROOT / ".nox" / "in-place"
    shutil.rmtree(project, ignore_errors=True)
    render(project, {"framework": "both", "task": "all", "extras": ["streaming", "search", "serving", "cluster"]})
    with (project / "requirements-cpu.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for lines in packages["tracker"].values() for line in lines)
        file.writelines(f"{line}\n" for line in FOR_INTERNALS)
    python = install(project)
    named = any((ROOT / "template" / argument.partition("::")[0]).exists() for argument in arguments)
    # without --rootdir, pytest would print the tests of internals/ without their files
    command = [python, "-m", "pytest", "-c", "pyproject.toml", "--rootdir", "..", "-q", "-p", "no:cacheprovider"]
    command += ["-n", "auto", *arguments, *([] if named else ["tests", "../internals"])]
    # processes that each use all cores wait for one another
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT / "template", env=environment, check=False
    ).returncode


def demo() -> int:
    """Render the default project into demo/, install it, train it, and print where to look."""
    project = ROOT / "demo"
    shutil.rmtree(project, ignore_errors=True)
    print("copier copy --defaults . demo", flush=True)
    render(project, {})
    print("pip install -r requirements-cpu.txt", flush=True)
    python = install(project)
    print("python scripts/train.py", flush=True)
    call([python, "scripts/train.py"], project)
    print(f"\nThe project is in {project}. Open the report above in a browser, then try:")
    print(f"  cd {project.name}\n  {python} scripts/train.py --help")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
