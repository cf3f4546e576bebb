"""Where a run is shown besides its own folder: TensorBoard, Weights & Biases, MLflow, or nowhere."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.kit.config import UserError, resolve

ROOT = Path(__file__).resolve().parents[3]  # its name is the default name of projects and experiments
TRACKERS = {
    "none": "src.kit.trackers.base:Tracker",
    "tensorboard": "src.kit.trackers.tensorboard:TensorBoardTracker",
    "wandb": "src.kit.trackers.wandb:WandbTracker",
    "mlflow": "src.kit.trackers.mlflow:MlflowTracker",
}
PACKAGES = {"tensorboard": "tensorboardX tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class Tracker:
    """The tracker `none`: it takes everything and keeps nothing. The others override its three methods."""

    def __init__(self, cfg: DictConfig, run_dir: Path) -> None:
        """Start to track the run in `run_dir`, whose merged configuration is `cfg`."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep numbers as they are after `step` optimizer steps; steps must not go back."""

    def log_picture(self, name: str, path: Path) -> None:
        """Keep a PNG file."""

    def close(self) -> None:
        """Write out what is left."""


class Guard(Tracker):
    """Passes everything on until the tracker fails; then it warns once and lets the training go on without it."""

    def __init__(self, tracker: Tracker, name: str) -> None:
        self.tracker, self.name, self.alive = tracker, name, True

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.guard(self.tracker.log, metrics, step)

    def log_picture(self, name: str, path: Path) -> None:
        self.guard(self.tracker.log_picture, name, path)

    def close(self) -> None:
        self.guard(self.tracker.close)

    def guard(self, method: Callable[..., None], *arguments: Any) -> None:
        """Call a method of the tracker unless it has failed before."""
        if not self.alive:
            return
        try:
            method(*arguments)
        except Exception as error:
            self.alive = False
            text = "tracker=%s failed and is not used any more (%s); the run folder still gets everything."
            logging.getLogger("train").warning(text, self.name, error)


def open_tracker(cfg: DictConfig, run_dir: Path) -> Tracker:
    """Start the tracker `cfg.tracker.name` for a run; once it runs, its failures only warn.

    Raises:
        UserError: no such tracker, its package isn't installed, or it could not start.
    """
    name = cfg.tracker.name
    try:
        tracker: Callable[[DictConfig, Path], Tracker] = resolve(TRACKERS, name, "tracker")
        return Guard(tracker(cfg, run_dir), name)
    except UserError:
        raise
    except ImportError as error:
        packages = PACKAGES[name]
        raise UserError(f"tracker={name} needs `pip install {packages}`, or choose tracker=none ({error}).") from error
    except Exception as error:  # each service has its own exceptions: no login, no network, no such project
        raise UserError(
            f"tracker={name} could not start: {one_line(error)} Mend that, or choose tracker=none."
        ) from error


def one_line(error: Any) -> str:
    """Return an error's text on one line, with a full stop."""
    return " ".join(str(error).split()).rstrip(".") + "."
