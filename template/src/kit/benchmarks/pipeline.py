"""Run the whole pipeline once, from the environment to the evaluation, against the tier's time and memory limits.

`scripts/quick_validate.py` and `scripts/full_validate.py` share it.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import Selection, auto_select_dataset, dataset_specs
from src.kit.config import UserError, load_config
from src.kit.hardware import peak_mib

# one process, so that its memory is the total; the command line's overrides come after these
ROOT = Path(__file__).resolve().parents[3]
KEYS = ("trainer.max_epochs=1", "trainer.devices=1", "tracker=none")


@dataclass(frozen=True)
class StepResult:
    """`status` is "ok", "fail" or "skipped"; `peak_mib` is the process's peak memory up to the end of the step."""

    step: str
    status: str
    seconds: float
    peak_mib: int
    detail: str


@dataclass
class Report:
    """The configuration that was checked, its limits, and each step's result."""

    dataset: str
    framework: str
    tier: str
    memory_limit_mib: int
    seconds_limit: int
    steps: list[StepResult] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every step was ok."""
        return all(result.status == "ok" for result in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed}


def validate_pipeline(overrides: Sequence[str], stage: str, dataset: str | None = None, as_json: bool = False) -> None:
    """Check the pipeline as the command line says; exit with 1 if a step failed or a limit was exceeded.

    Args:
        stage: "debug" or "production".
        dataset: of `src/configs/data`, which `data=NAME` among the overrides names too; None: the stage's own.
        as_json: print one JSON object and no table.
    """
    if wrong := next((word for word in overrides if word.startswith("-")), None):
        raise UserError(f"Cannot read {wrong!r}: write --dataset NAME, key=value, or --help.")
    named = [word.removeprefix("data=") for word in overrides if word.startswith("data=")]
    if dataset and named:
        raise UserError(f"--dataset {dataset} and data={named[-1]} both name the data set: leave one out.")
    dataset = named[-1] if named else dataset
    overrides = [word for word in overrides if not word.startswith("data=")]
    overrides = [*choose_task(dataset, overrides), *overrides]
    task = load_config([word for word in overrides if word.startswith("task=")]).task
    selection = auto_select_dataset(task, stage=stage, dataset=dataset)
    with tempfile.TemporaryDirectory(prefix="validate-", ignore_cleanup_errors=True) as folder:
        cfg = load_config([*selection.arguments, *KEYS, f"output_dir={Path(folder).as_posix()}", *overrides])
        report = check_pipeline(cfg, selection, STEPS)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report)
    sys.exit(0 if report.passed else 1)


def choose_task(dataset: str | None, overrides: Sequence[str]) -> list[str]:
    """The override that sets the data set's first task, if the default task does not fit it and none was given."""
    if dataset not in dataset_specs() or any(word.startswith("task=") for word in overrides):
        return []
    tasks = dataset_specs()[dataset].tasks
    return [] if load_config([]).task in tasks else [f"task={tasks[0]}"]


def check_pipeline(cfg: DictConfig, selection: Selection, steps: Mapping[str, Callable[[DictConfig], str]]) -> Report:
    """Run the steps in order and skip the rest after a failure. The last row compares with the limits."""
    report = Report(cfg.data.name, cfg.framework, selection.tier, selection.memory_mib, selection.minutes * 60)
    started = time.perf_counter()
    for name, step in steps.items():
        report.steps.append(
            run_step(name, step, cfg) if report.passed else StepResult(name, "skipped", 0.0, peak_mib(), "")
        )
    seconds, peak = time.perf_counter() - started, peak_mib()
    within = peak <= report.memory_limit_mib and seconds <= report.seconds_limit
    limits = f"at most {report.memory_limit_mib} MiB and {report.seconds_limit} s in the tier {report.tier}"
    report.steps.append(StepResult("limits", "ok" if within else "fail", seconds, peak, limits))
    return report


def run_step(name: str, step: Callable[[DictConfig], str], cfg: DictConfig) -> StepResult:
    """Time one step, even if it fails."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    try:
        with redirect_stdout(sys.stderr):  # keeps what training prints out of the table and the JSON
            status, detail = "ok", step(cfg)
    except UserError as error:
        status, detail = "fail", str(error)
    except Exception as error:  # any failure must become a row, or the table would not be complete
        status, detail = "fail", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return StepResult(name, status, time.perf_counter() - started, peak_mib(), detail)


def print_report(report: Report) -> None:
    """Print the report as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "fail": "bold red", "skipped": "dim"}
    table = Table("step", "", "seconds", "peak MiB", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("detail", overflow="fold")  # or a long address would lose its end
    for column in (2, 3):
        table.columns[column].justify = "right"
    for each in report.steps:
        status = f"[{colours[each.status]}]{each.status}[/]"
        table.add_row(each.step, status, f"{each.seconds:.1f}", str(each.peak_mib), each.detail.replace("[", r"\["))
    Console().print(table)
    print(f"{report.dataset} with {report.framework}: {'passed' if report.passed else 'FAILED'}")


def check_machine(cfg: DictConfig) -> str:
    """Check the machine and the packages, and import the framework."""
    from src.kit.hardware import Diagnosis, check_environment, detect, recommend
    from src.kit.training import load_backend

    hardware = detect()
    diagnosis = Diagnosis(hardware, recommend(hardware), check_environment(hardware, ROOT))
    failed = [f"{check.name}: {check.detail}" for check in diagnosis.checks if check.status == "fail"]
    if failed:
        raise UserError(f"{'; '.join(failed)}: see `python scripts/doctor.py`.")
    load_backend(cfg)
    warnings = [check.name for check in diagnosis.checks if check.status == "warn"]
    return cfg.framework + (f", warnings of scripts/doctor.py: {', '.join(warnings)}" if warnings else "")


def load_splits(cfg: DictConfig) -> str:
    """Download what is missing and load the three splits."""
    from src.kit.catalog import SPLITS, build_dataset, download_dataset

    download_dataset(cfg.data)
    loaded = {split: build_dataset(cfg, split) for split in SPLITS}
    counts = ", ".join(f"{len(part):,} {split}" for split, part in loaded.items())
    return f"{counts}, {len(loaded['train'].classes)} classes"


def read_epoch(cfg: DictConfig) -> str:
    """Prepare an epoch's training batches and check the first one."""
    from src.kit.training import Experiment

    batches = Experiment(cfg).build_loader("train")
    started, images, shape = time.perf_counter(), 0, ()
    for inputs, *_ in batches:
        if not images:
            shape = inputs.shape
            if not np.isfinite(inputs).all() or inputs.std() == 0:
                raise UserError(
                    "The first batch has values that are not finite, or all its values are equal: check data.std."
                )
        images += len(inputs)
    return f"{len(batches)} batches of {shape}, {images / (time.perf_counter() - started):,.0f} images/s"


def train_epoch(cfg: DictConfig) -> str:
    """Train for an epoch in a new run folder."""
    from src.kit.run import Run, read_rows
    from src.kit.training import Experiment, load_trainer

    with Run(cfg) as run:
        load_trainer(cfg).fit(Experiment(cfg), run)
    row = read_rows(run.path / "metrics.jsonl")[-1]
    return ", ".join(f"{name} {value:.3f}" for name, value in row.items() if "/" in name)


def evaluate_checkpoint(cfg: DictConfig) -> str:
    """Evaluate the checkpoint on the validation and test splits, with pictures and report."""
    from src.kit.training import Experiment, evaluate_run, newest_run

    results = evaluate_run(Experiment(cfg), newest_run(Path(cfg.output_dir)), ["val", "test"])
    score = next(name for name, value in results["test"].items() if isinstance(value, float))
    return ", ".join(f"{split} {score} {result[score]:.3f}" for split, result in results.items())


STEPS: dict[str, Callable[[DictConfig], str]] = {
    "environment": check_machine,
    "data": load_splits,
    "loader": read_epoch,
    "training": train_epoch,
    "evaluation": evaluate_checkpoint,
}
