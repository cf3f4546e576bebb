"""What tests call: an experiment's parts from a configuration, without a script."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.kit.run import Run
from src.kit.training import Experiment, load_backend, load_task, load_trainer


def fit(cfg: DictConfig, run: Run, checkpoint: Path | None = None) -> None:
    """Train into an open run folder, without the evaluation after it."""
    load_trainer(cfg.framework).fit(Experiment(cfg), run, checkpoint)


def predict(cfg: DictConfig, checkpoint: Path, split: str) -> list[Any]:
    """What the task collects from the predictions of a checkpoint."""
    experiment, backend = Experiment(cfg), load_backend(cfg.framework)
    experiment.split(split)
    return backend.predict(experiment, backend.load_network(experiment, checkpoint), split)


def build_loader(cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> Any:
    """Batches of a data set."""
    return load_task(cfg.task).build_loader(cfg, dataset, kind, rank, world_size)


def build_network(cfg: DictConfig, dataset: Any, initial: bool = True) -> Any:
    """The network for a data set."""
    return Experiment(cfg, {"train": dataset}).build_network(initial)
