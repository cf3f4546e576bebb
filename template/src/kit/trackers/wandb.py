"""Weights & Biases: files lie in `<run>/wandb`; `wandb sync <run>/wandb/offline-*` sends an offline run later."""

import os
from collections.abc import Mapping
from pathlib import Path

import wandb
from omegaconf import DictConfig, OmegaConf

from src.kit.trackers.base import ROOT, Tracker


class WandbTracker(Tracker):
    """One W&B run a training; WANDB_MODE and WANDB_API_KEY count as usual unless `tracker.offline` is set."""

    def __init__(self, cfg: DictConfig, run_dir: Path) -> None:
        os.environ.setdefault("WANDB_CACHE_DIR", str(run_dir / "wandb" / "cache"))  # else it writes to the home folder
        self.run = wandb.init(
            project=cfg.tracker.project or ROOT.name,
            entity=cfg.tracker.entity,
            name=run_dir.name,
            dir=str(run_dir),
            mode="offline" if cfg.tracker.offline else None,
            config=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def log_picture(self, name: str, path: Path) -> None:
        self.run.log({name: wandb.Image(str(path))})

    def close(self) -> None:
        self.run.finish()
