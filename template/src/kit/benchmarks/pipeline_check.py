"""The whole pipeline once, from the environment to the evaluation: each step timed, its memory held against the tier's.

What `scripts/quick_validate.py` and `scripts/full_validate.py` share.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.kit.catalog import STAGES, Selection, auto_select_dataset
from src.kit.config import UserError, load_config
from src.kit.hardware import peak_mib

# one process, so that its memory is all of it; overrides of the command line come after these
KEYS = ("trainer.max_epochs=1", "trainer.devices=1", "tracker=none")


@dataclass(frozen=True)
class Result:
    """`status` is "ok", "fail" or "skipped"; `peak_mib` is the most memory the process ever had up to its end."""

    step: str
    status: str
    seconds: float
    peak_mib: int
    detail: str


@dataclass
class Report:
    """What was checked, and what each step found."""

    dataset: str
    framework: str
    tier: str
    memory_limit_mib: int
    seconds_limit: int
    steps: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every step was ok."""
        return all(result.status == "ok" for result in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "passed": self.passed}


def main(argv: Sequence[str], stage: str, doc: str) -> None:
    """Check the pipeline as the command line says, and leave with 1 where a step failed or a limit was passed."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=list(STAGES), default=stage)
    parser.add_argument("--dataset", help="a data set of src/configs/data; default: the one that the stage chooses")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    options, overrides = parser.parse_known_args(argv)
    if wrong := next((word for word in overrides if word.startswith(("-", "data="))), None):
        raise UserError(f"Cannot read {wrong!r}: write --dataset NAME, key=value, or --help.")
    from src.kit.benchmarks.pipeline_steps import STEPS

    task = load_config([word for word in overrides if word.startswith("task=")]).task
    selection = auto_select_dataset(task, stage=options.stage, dataset=options.dataset)
    with tempfile.TemporaryDirectory(prefix="validate-", ignore_cleanup_errors=True) as folder:
        cfg = load_config([*selection.arguments, *KEYS, f"output_dir={Path(folder).as_posix()}", *overrides])
        report = check_pipeline(cfg, selection, STEPS)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        show(report)
    sys.exit(0 if report.passed else 1)


def check_pipeline(cfg: DictConfig, selection: Selection, steps: Mapping[str, Callable[[DictConfig], str]]) -> Report:
    """Run the steps in order; after one that fails, the others are skipped. The last row compares with the limits."""
    report = Report(cfg.data.name, cfg.framework, selection.tier, selection.memory_mib, selection.minutes * 60)
    started = time.perf_counter()
    for name, step in steps.items():
        report.steps.append(run(name, step, cfg) if report.passed else Result(name, "skipped", 0.0, peak_mib(), ""))
    seconds, peak = time.perf_counter() - started, peak_mib()
    held = peak <= report.memory_limit_mib and seconds <= report.seconds_limit
    limits = f"at most {report.memory_limit_mib} MiB and {report.seconds_limit} s in the tier {report.tier}"
    report.steps.append(Result("limits", "ok" if held else "fail", seconds, peak, limits))
    return report


def run(name: str, step: Callable[[DictConfig], str], cfg: DictConfig) -> Result:
    """Time one step, whatever becomes of it."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    try:
        with redirect_stdout(sys.stderr):  # what a training prints is no part of the table or the JSON
            status, detail = "ok", step(cfg)
    except UserError as error:
        status, detail = "fail", str(error)
    except Exception as error:  # any fault must become a row, or the table would not be complete
        status, detail = "fail", f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Result(name, status, time.perf_counter() - started, peak_mib(), detail)


def show(report: Report) -> None:
    """Print the table."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    colours = {"ok": "green", "fail": "bold red", "skipped": "dim"}
    table = Table("step", "", "seconds", "peak MiB", "detail", box=SIMPLE_HEAD, pad_edge=False)
    for column in (2, 3):
        table.columns[column].justify = "right"
    for each in report.steps:
        status = f"[{colours[each.status]}]{each.status}[/]"
        table.add_row(each.step, status, f"{each.seconds:.1f}", str(each.peak_mib), each.detail.replace("[", r"\["))
    Console().print(table)
    print(f"{report.dataset} with {report.framework}: {'passed' if report.passed else 'FAILED'}")
