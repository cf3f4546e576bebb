"""The run folder `outputs/<name>-<time>/`: all that a training leaves behind and how it was made; the progress bar."""

import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError, hide_passwords, name_layer, write_config
from src.kit.hardware import detect
from src.kit.ranks import find_place, is_main_process
from src.kit.storage import read_json, read_rows, write_csv, write_json, write_rows
from src.kit.trackers import Tracker, open_tracker

__all__ = [
    "REDRAW_S",
    "Progress",
    "Run",
    "describe_run",
    "has_checkpoint",
    "is_main_process",
    "new_folder",
    "open_bar",
    "read_info",
    "read_json",
    "read_rows",
    "write_json",
]


REDRAW_S = 0.1  # seconds between two pictures of the bar
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "paddlepaddle", "paddlepaddle-gpu", "numpy", "omegaconf")
INFO: dict[str, tuple[type, ...]] = {  # keys of run.json that are read again
    "status": (str,),
    "framework": (str,),
    "started": (str,),
    "command": (list,),
    "duration_s": (int, float),
    "parameters": (int,),
}


class Progress:
    """Shows a training; epochs are counted from 0, as the trainers do, and shown from 1."""

    def __init__(self, shown: bool = True, stream: TextIO | None = None) -> None:
        """`shown=False` keeps silent (all ranks but the first); `stream` is standard output unless given."""
        self.stream = stream or sys.stdout
        self.shown = shown
        self.on_terminal = shown and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.started, self.total_epochs, self.next_draw = False, 0, 0.0
        self.bar: Any = None

    def start(self, total_epochs: int) -> None:
        """Begin to show a training of so many epochs."""
        self.started, self.total_epochs = True, total_epochs
        if self.on_terminal:
            self.bar = open_bar(self.stream)

    def step(self, epoch: int, step: int, total_steps: int, loss: Any, lr: float) -> None:
        """Show step `step` (from 1) of an epoch.

        The loss may be a scalar tensor: it is fetched only when the bar is redrawn, so that a GPU isn't waited for.
        """
        if self.bar is None or (now := time.perf_counter()) < self.next_draw:
            return
        self.next_draw = now + REDRAW_S
        values = f"loss {float(loss):.4f}  lr {lr:.2e}"
        self.bar.update(self.bar.task_ids[0], description=f"epoch {epoch + 1}/{self.total_epochs}", values=values)
        self.bar.update(self.bar.task_ids[0], completed=step, total=total_steps, refresh=True)

    def epoch(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write an epoch's line; of the metrics it shows those with a slash in their name, and `epoch_s`."""
        if not self.shown:
            return
        line = epoch_line(epoch, self.total_epochs, metrics)
        if self.bar is None:
            print(line, file=self.stream, flush=True)
            return
        self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.bar.reset(self.bar.task_ids[0])

    def close(self) -> None:
        """Remove the bar and give the terminal back; safe to call twice, and after a failure."""
        if self.bar is not None:
            self.bar.stop()
        self.started, self.bar = False, None


def epoch_line(epoch: int, total_epochs: int, metrics: Mapping[str, Any]) -> str:
    """Return "epoch 3/10  train/loss 0.123  val/accuracy 0.971  1.2 s", aligned from epoch to epoch."""
    number = f"{epoch + 1:{len(str(total_epochs))}d}"
    parts = [f"epoch {number}/{total_epochs}"]
    parts += [f"{name} {value:.4f}" for name, value in metrics.items() if "/" in name and value is not None]
    if "epoch_s" in metrics:
        parts.append(f"{metrics['epoch_s']:.1f} s")
    return "  ".join(parts)


def open_bar(stream: TextIO) -> Any:
    """Start a rich progress bar that draws only when it is told to: no thread competes with the training."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(compact=True),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("starting", total=None, values="")
    bar.start()
    return bar


class Run:
    """An open run folder; leaving it records how the run ended, and removes a new folder that has no checkpoint."""

    def __init__(self, cfg: DictConfig, path: Path | None = None) -> None:
        """Create `<output_dir>/<name>-<time>`, or open `path` to continue in it. Only rank 0 writes."""
        self.main = is_main_process()
        self.log = logging.getLogger("train")
        self.started, self.created = time.time(), path is None
        # other ranks learn of rank 0's folder from the framework, once they can talk to each other
        self.path = path or (new_folder(Path(cfg.output_dir), cfg.name) if self.main else Path(cfg.output_dir))
        self.info = read_info(self.path)
        self.rows: list[dict[str, Any]] = []  # of the finished epochs; each checkpoint has them
        if self.main:
            self.handlers = open_log(self.log, self.path / "train.log")
            write_config(cfg, self.path / "config.yaml")
            self.update(status="running", **(describe_run(cfg) if not path else {}))
        self.tracker, self.progress = Tracker(), Progress(shown=self.main)
        try:
            self.tracker = open_tracker(cfg, self.path) if self.main else self.tracker
        except UserError as error:
            self.__exit__(UserError, error, None)
            raise

    def update(self, **values: Any) -> None:
        """Set keys of run.json, which is replaced as a whole."""
        with suppress(UserError):  # damaged since: what this process knows is enough
            self.info = read_info(self.path)
        self.info.update(values)
        if self.main:
            write_json(self.path / "run.json", self.info)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Append one epoch to metrics.jsonl, metrics.csv and the tracker."""
        if not self.main:
            return
        self.rows.append(row)
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        write_csv(self.path / "metrics.csv", self.rows)
        self.log.debug("%s", row)
        self.track(row)

    def track(self, row: Mapping[str, float]) -> None:
        """Hand an epoch's metrics to the tracker."""
        self.tracker.log({name: value for name, value in row.items() if "/" in name}, int(row["step"]))

    def restore_epochs(self, rows: Sequence[dict[str, float]]) -> None:
        """Start from the epochs that a checkpoint knows: a resumed run writes later ones again."""
        if not self.main:
            return
        self.rows = list(rows)
        write_rows(self.path / "metrics.jsonl", self.rows)
        write_csv(self.path / "metrics.csv", self.rows)
        for row in self.rows:
            self.track(row)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        if not self.main:
            return
        status, saved = how_it_ended(kind), has_checkpoint(self.path)
        self.tracker.close(status)
        try:
            self.update(status=status, duration_s=self.info.get("duration_s") or self.seconds())
        except OSError:  # a full disk: the error that ended the run says more
            if kind is None:
                raise
        if status == "failed":
            self.log.debug("failed: %s%s", "".join(traceback.format_exception(error)), name_layer(error))
            if saved and not isinstance(error, UserError | OSError):  # a sentence says what to do, or nobody listens
                self.log.warning("Failed: continue with --resume %s, whose train.log has the traceback.", self.path)
        elif status == "interrupted":
            how = "before the first checkpoint, so the folder is removed"
            self.log.warning("Interrupted%s.", f": continue with --resume {self.path}" if saved else f" {how}")
        for handler in self.handlers:
            self.log.removeHandler(handler)
            handler.close()
        if kind and self.created and not saved:
            shutil.rmtree(self.path, ignore_errors=True)

    def seconds(self) -> float:
        """Seconds since this run was opened."""
        return round(time.time() - self.started, 3)


def how_it_ended(kind: type[BaseException] | None) -> str:
    """The status in run.json after an exception of this kind: "finished" (None), "interrupted" or "failed"."""
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"


def has_checkpoint(run: Path) -> bool:
    """Whether a run folder holds a checkpoint, whatever state it is in."""
    return any(path.is_dir() for path in (run / "checkpoints").glob("epoch=*"))


def read_info(run: Path) -> dict[str, Any]:
    """Return run.json, or an empty mapping if there is none.

    Raises:
        UserError: it is damaged.
    """
    info = read_json(run / "run.json")
    for key, kinds in INFO.items():
        if key in info and not isinstance(info[key], kinds):
            raise UserError(f"{run / 'run.json'} is damaged ({key} is {info[key]!r}): delete it.")
    return info


def new_folder(parent: Path, name: str) -> Path:
    """Make `<parent>/<name>-<time>`; a second run within the same second gets a number."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError(f"a thousand runs named {stem}")


def describe_run(cfg: DictConfig) -> dict[str, Any]:
    """What it takes to repeat a run: versions, git commit, template version, seed, hardware, command."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    place, answers = find_place(), ROOT / ".copier-answers.yml"
    recorded = OmegaConf.load(answers) if answers.exists() else {}
    return {
        "framework": cfg.framework,
        "seed": cfg.seed,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", *map(hide_passwords, sys.argv)],
        "git_commit": git_commit(),
        "template_version": recorded.get("_commit") or recorded.get("template_version"),
        "versions": {"python": platform.python_version(), **installed},
        "hardware": detect().to_dict(),
        "processes": place.ranks if place else 1,
        "job": place.job if place else None,
    }


def git_commit() -> str | None:
    """The project's commit, followed by `-dirty` if tracked files differ; None outside git.

    Images hold no git: their commit is GIT_COMMIT, or what was checked out at the build, whatever files differed then.
    """
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GIT_COMMIT") or checked_out(ROOT / ".git")
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")


def checked_out(folder: Path) -> str | None:
    """The commit that a .git folder's HEAD names, read without git; None if there is none."""
    try:
        head = (folder / "HEAD").read_text("utf-8").strip().removeprefix("ref: ")
        if (loose := folder / head).is_file():
            return loose.read_text("utf-8").strip()
        packed = (folder / "packed-refs").read_text("utf-8") if (folder / "packed-refs").is_file() else ""
    except OSError:
        return None
    names = {name: commit for commit, _, name in (line.partition(" ") for line in packed.splitlines())}
    return names.get(head) or (head if re.fullmatch("[0-9a-f]{40,64}", head) else None)


class Screen(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard output is at the time: rich stands in for it while a bar is shown, and moves the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def open_log(log: logging.Logger, path: Path) -> list[logging.Handler]:
    """Send a logger's messages to train.log in full, and the important ones to the console."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    file, console = logging.FileHandler(path, encoding="utf-8"), Screen()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console.setLevel(logging.INFO)
    for handler in (file, console):
        handler.addFilter(without_passwords)
        log.addHandler(handler)
    return [file, console]


def without_passwords(record: logging.LogRecord) -> bool:
    """Hide passwords and tokens in the URLs of a message."""
    record.msg, record.args = hide_passwords(record.getMessage()), ()
    return True
