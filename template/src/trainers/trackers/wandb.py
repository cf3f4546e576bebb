"""Weights & Biases. Files are in `<run>/wandb`; `wandb sync <run>/wandb/offline-*` uploads an offline run later."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from src.kit.config import hide_passwords
from src.kit.trackers import PROJECT, Tracker


class WandbTracker(Tracker):
    """One W&B run per training."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def log_picture(self, name: str, path: Path) -> None:
        self.run.log({name: wandb.Image(str(path))})

    def log_histograms(self, values: Mapping[str, Any], step: int) -> None:
        finite = {name: each for name, each in values.items() if np.isfinite(each).all()}
        self.run.log({name: wandb.Histogram(each) for name, each in finite.items()}, step=step)

    def log_results(self, results: Mapping[str, float], files: Sequence[Path]) -> None:
        self.run.summary.update(dict(results))
        artifact = wandb.Artifact(f"run-{self.run.id}", type="model")
        for path in files:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def close(self, status: str = "finished") -> None:
        self.run.finish(exit_code=int(status != "finished"))


def build(
    run_dir: Path,
    cfg: dict[str, Any],
    *,
    project: str | None = None,
    entity: str | None = None,
    offline: bool = True,
) -> Tracker:
    """Start a W&B run. WANDB_API_KEY, and WANDB_MODE unless `offline` is set, work as usual.

    Args:
        project: W&B project (null: the name of the project's folder).
        entity: W&B team or user (null: your default).
        offline: Keep the files local and upload them later with `wandb sync`.
    """
    os.environ.setdefault("WANDB_CACHE_DIR", str(run_dir / "wandb" / "cache"))  # or W&B writes to the home folder
    secret = any(hide_passwords(word) != word for word in sys.argv)  # W&B's metadata hold the command line
    run = wandb.init(
        project=project or PROJECT,
        entity=entity,
        name=run_dir.name,
        dir=str(run_dir),
        mode="offline" if offline else None,
        config=cfg,
        settings=wandb.Settings(silent=True, console="off", x_disable_meta=secret),
    )
    return WandbTracker(run)
