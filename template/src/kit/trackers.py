"""Show runs in TensorBoard, Weights & Biases, MLflow or your own service, besides the run folder.

A tracker is a file `src/trainers/trackers/<name>.py` whose `build(run_dir, cfg, *, ...)` returns a `Tracker`; its
keyword-only arguments are the keys of `tracker.*`.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError, hide_passwords, load_component, shown_config

__all__ = ["PROJECT", "Tracker", "flatten", "open_tracker", "without_import"]

PROJECT = Path(__file__).resolve().parents[2].name  # default name of projects and experiments


@contextmanager
def without_import(name: str) -> Iterator[None]:
    """Let `import name` fail, for a library that would load a large one just to know its types; loaded ones stay."""
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]


class Tracker:
    """The tracker `none`: accepts everything and records nothing. Others override these methods."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers after `step` optimizer steps; `step` never decreases."""

    def log_picture(self, name: str, path: Path) -> None:
        """Record a PNG file."""

    def log_histograms(self, values: Mapping[str, Any], step: int) -> None:
        """Record the distributions of gradients and weights, samples float32 (N,), after `step` optimizer steps."""

    def log_results(self, results: Mapping[str, float], files: Sequence[Path]) -> None:
        """Record what a finished run reached, such as `test/accuracy`, `parameters` and `duration_s`, and its files."""

    def close(self, status: str = "finished") -> None:
        """Write what is still buffered; `status` is how the run ended: finished, interrupted or failed."""


class Guard(Tracker):
    """Pass everything on until the tracker fails; then warn once and let training continue without it."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker, self.name, self.alive = tracker, name, True

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.call(self.tracker.log, metrics, step)

    def log_picture(self, name: str, path: Path) -> None:
        self.call(self.tracker.log_picture, name, path)

    def log_histograms(self, values: Mapping[str, Any], step: int) -> None:
        self.call(self.tracker.log_histograms, values, step)

    def log_results(self, results: Mapping[str, float], files: Sequence[Path]) -> None:
        self.call(self.tracker.log_results, results, files)

    def close(self, status: str = "finished") -> None:
        self.call(self.tracker.close, status)

    def call(self, method: Callable[..., None], *arguments: Any) -> None:
        """Call a method of the tracker unless it has failed before."""
        if not self.alive:
            return
        try:
            method(*arguments)
        except Exception as error:
            self.alive = False
            text = "tracker=%s failed and is off from now on (%s). The run folder still gets everything."
            logging.getLogger("train").warning(text, self.name, hide_passwords(str(error)))


def open_tracker(cfg: DictConfig, run_dir: Path) -> Tracker:
    """Start the tracker `cfg.tracker.name` for a run. Failures after the start only warn.

    Raises:
        UserError: there is no such tracker, its package isn't installed, or it could not start.
    """
    name = cfg.tracker.name
    if name == "none":
        return Guard(Tracker(), name)
    values: Any = OmegaConf.to_container(cfg.tracker, resolve=True)
    keys = {key: value for key, value in values.items() if key not in ("name", "file")}
    try:
        return Guard(
            load_component("tracker", cfg.tracker.get("file") or name).build(run_dir, shown_config(cfg), **keys), name
        )
    except UserError:
        raise
    except ImportError as error:
        package = (error.name or name).partition(".")[0]
        raise UserError(
            f"tracker={name} needs {package}: run `pip install {package}`, or choose tracker=none ({error})."
        ) from error
    except Exception as error:  # each service has its own exceptions: no login, no network, no such project
        raise UserError(
            f"tracker={name} could not start: {one_line(error)} Fix this, or choose tracker=none."
        ) from error


def one_line(error: Any) -> str:
    """An error's text on one line, with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys: {"model": {"name": "cnn"}} -> {"model.name": "cnn"}."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        key: leaf
        for name, value in values.items()
        for key, leaf in flatten(value, f"{prefix}.{name}".strip(".")).items()
    }
