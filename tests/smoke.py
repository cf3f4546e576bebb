"""Render, install, test, train, evaluate, export and compare every variant in examples/, and print two tables.

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
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests import end_to_end, history, layouts, make_data
from tests.readme import commands
from tests.render import EXAMPLES, RENDERING, ROOT, render
from tools import adopt

ENVIRONMENTS = ROOT / ".nox" / "environments"
VARIANTS = ROOT / ".nox" / "variants"
TOGETHER = min(4, os.cpu_count() or 1)  # variants that run side by side; each takes up to 2 GB
INSTALLING, SHOWING = threading.Lock(), threading.Lock()
LOG = threading.local()  # .file: where a variant's commands write, since several run side by side
# what is predicted, exported and compared: every task in both frameworks, and each framework without the other
CHAINED = ("both", "lightning", "paddle")
FEW = ["trainer.limit_train_batches=6", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
# Mask R-CNN soon takes everything for background; as it is drawn, it finds objects, whose exports can be compared
STILL = [*FEW[1:], "trainer.limit_train_batches=2", "optimizer.lr=0.000001"]
# task -> its score, the minimum after one epoch, and overrides. Detectors learn nothing in so few batches: this runs
# every step of theirs, and benchmarks/learning.py proves that they learn.
SCORES: dict[str, tuple[str, float, list[str]]] = {
    "classification": ("accuracy", 0.5, ["optimizer.lr=0.01"]),  # guessing gives 0.1
    "detection": ("map50", 0.0, FEW),
    "segmentation": ("miou", 0.0, FEW),
    "instance_segmentation": ("mask_map50", 0.0, STILL),
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
    chain: end_to_end.Chain | None = None


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
    VARIANTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(TOGETHER) as pool:
        found = pool.map(lambda name: logged(name, variants[name]), options.names or variants)
        rows = [row for part in found for row in part]
    print(table(rows))
    if chains := [row.chain for row in rows if row.chain]:
        print(f"\n{end_to_end.table(chains)}\n")
    failed = [row for row in rows if row.failure]
    times = os.times()
    used = f"{times.children_user + times.children_system:.0f} s of CPU time"
    print(f"smoke: {len(rows) - len(failed)} passed, {len(failed)} failed; {used}")
    return 1 if failed or not rows else 0


def logged(name: str, work: Callable[[], list[Row]]) -> list[Row]:
    """Run a variant with its output in .nox/variants/NAME.log, and show that when it has ended."""
    path = VARIANTS / f"{name}.log"
    print(f"--- {name} started, see {path}", flush=True)
    with path.open("w", encoding="utf-8") as LOG.file:
        rows = work()
    with SHOWING:
        print(f"--- {name}\n{path.read_text('utf-8', 'replace')}", flush=True)
    return rows


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
    project = VARIANTS / name
    shutil.rmtree(project, ignore_errors=True)
    base = Row(name)
    try:
        with RENDERING, timed(base, "render"):
            make(project, answers)
        with timed(base, "install"):
            python = install(project)
        make_data.write(answers.get("dataset", "digits"), project / "data")
        if make is render:  # an updated project is a fresh one, says tests/test_updates.py
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
        train(Row(label(name, each, kind, both), dict(base.seconds)), project, python, each, kind, name in CHAINED)
        for kind in tasks
        for each in frameworks
    ]
    if name != "lightning":
        return rows
    return [*rows, run_readme(project, python), *(train_adopted(layout, python) for layout in layouts.LAYOUTS)]


def train_adopted(layout: str, python: Path) -> Row:
    """Bring a project from elsewhere under the template, take the template's side of conflicts, and train in it."""
    row, project = Row(f"lightning: adopted, {layout}"), VARIANTS / f"adopted-{layout}"
    shutil.rmtree(project, ignore_errors=True)
    try:
        layouts.make_layout(layout, project)
        with RENDERING, timed(row, "render"):
            left = adopt.adopt(project, {"source": str(history.template_repository())})
        for name in left.conflicts:
            history.git(project, "checkout", "--theirs", "--", name)
        with timed(row, "train"):
            row.memory = call([python, "scripts/train.py", "trainer.max_epochs=1", *FEW, "tracker=none"], project)
    except Exception as error:  # the table reports it
        row.failure = " ".join(str(error).split())
    return row


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


def train(row: Row, project: Path, python: Path, framework: str, task: str, chained: bool) -> Row:
    """Train one epoch, evaluate with the project's own scripts, read their results; `chained`: go on to predictions."""
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
        call([python, "scripts/test.py"], project)
        if chained:
            said = project / "eval-stderr.txt"
            call([python, "scripts/eval.py"], project, stderr=said)
            row.failure = " ".join(said.read_text("utf-8").split())
    except subprocess.CalledProcessError as error:
        row.failure = f"{' '.join(map(str, error.cmd[1:]))} gave {error.returncode}"
        return row
    run = max((project / "outputs").glob("*/evaluation-test.json"), key=lambda path: path.stat().st_mtime).parent
    row.score = json.loads((run / "evaluation-test.json").read_text("utf-8"))[score]
    if not worst <= row.score <= 1:
        row.failure = f"{score} {row.score:.3f} is not within {worst} and 1"
    if not (run / "report.html").is_file():
        row.failure = "no report.html"
    if chained and not row.failure:
        pythons = python, install_without_framework()
        row.chain = end_to_end.prove(end_to_end.Chain(task, framework), score, run, pythons, call)
        row.failure = row.chain.failure
    return row


def install(project: Path) -> Path:
    """Python of an environment with the project's requirements, shared by projects with equal ones."""
    return install_files([project / "requirements-cpu.txt", project / "requirements-dev.txt"])


def install_files(files: list[Path]) -> Path:
    """Python of an environment with the packages in these requirements files."""
    # named after the requirements without comments
    lines = [line for file in files for line in file.read_text("utf-8").splitlines() if not line.startswith("#")]
    folder = ENVIRONMENTS / hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    with INSTALLING:
        if done.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        arguments = [part for file in files for part in ("-r", str(file))]
        if uv := shutil.which("uv"):  # bytecode is written where a module is imported, which is half as much work
            call([uv, "venv", "--quiet", "--python", sys.executable, folder], ROOT)
            call([uv, "pip", "install", "--quiet", "--python", python, *arguments], ROOT)
        else:
            call([sys.executable, "-m", "venv", folder], ROOT)
            call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], ROOT)
        done.touch()
    return python


def install_without_framework() -> Path:
    """Python of an environment in which exports predict."""
    file = ENVIRONMENTS / "without-framework.txt"
    file.write_text("\n".join(end_to_end.requirements()), "utf-8")
    return install_files([file])


def call(command: list[Any], folder: Path, **streams: Path) -> float | None:
    """Run a command in `folder` and return its peak memory in MiB, if the system reports it.

    Args:
        streams: files for its stdout or stderr, which are else shown, or kept in the variant's log.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment.setdefault("OMP_NUM_THREADS", "1")  # processes that each use all cores wait for one another
    with ExitStack() as stack:
        log = getattr(LOG, "file", None)
        files = {name: stack.enter_context(path.open("w", encoding="utf-8")) for name, path in streams.items()}
        outputs = {"stdout": log, "stderr": log, **files}
        process = subprocess.Popen([str(part) for part in command], cwd=folder, env=environment, **outputs)
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
    """Run internals/ in template/, in an environment with all frameworks and trackers; or the tests in `arguments`."""
    packages = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["packages"]
    project = ROOT / ".nox" / "in-place"
    shutil.rmtree(project, ignore_errors=True)
    render(project, {"framework": "both", "task": "all", "extras": ["streaming", "search", "serving", "cluster"]})
    with (project / "requirements-cpu.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for lines in packages["tracker"].values() for line in lines)
        file.writelines(f"{line}\n" for line in FOR_INTERNALS)
        file.writelines(f"{line}; sys_platform == 'linux'\n" for line in packages["cluster"])
    python = install(project)
    named = any((ROOT / "template" / argument.partition("::")[0]).exists() for argument in arguments)
    # without --rootdir, pytest would print the tests of internals/ without their files
    command = [python, "-m", "pytest", "-c", "pyproject.toml", "--rootdir", "..", "-q", "-p", "no:cacheprovider"]
    command += ["-n", "auto", *arguments, *([] if named else ["../internals"])]
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
