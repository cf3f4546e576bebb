"""MLflow: a server, or a local SQLite file `<output_dir>/mlflow.db` that all runs share.

Look at it with `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`. MLflow 3 refuses its old file store.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from omegaconf import DictConfig, OmegaConf

from src.kit.trackers.base import ROOT, Tracker

LONGEST_VALUE = 6000  # characters of a parameter, and
MOST_VALUES = 100  # parameters in one request: the limits of MLflow's servers


class MlflowTracker(Tracker):
    """One MLflow run a training, through the client: MLflow's global state stays as it is."""

    def __init__(self, cfg: DictConfig, run_dir: Path) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database is announced in five lines
        outputs = run_dir.resolve().parent
        uri = cfg.tracker.uri or f"sqlite:///{(outputs / 'mlflow.db').as_posix()}"
        self.client = MlflowClient(tracking_uri=uri)
        name = cfg.tracker.experiment or ROOT.name
        found = self.client.get_experiment_by_name(name)
        folder = None if cfg.tracker.uri else (outputs / "mlflow").as_uri()
        experiment = found.experiment_id if found else self.client.create_experiment(name, artifact_location=folder)
        self.id = self.client.create_run(experiment, run_name=run_dir.name).info.run_id
        values = flatten(OmegaConf.to_container(cfg, resolve=True))
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in values.items()]
        for start in range(0, len(params), MOST_VALUES):
            self.client.log_batch(self.id, params=params[start : start + MOST_VALUES])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def log_picture(self, name: str, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), name)

    def close(self) -> None:
        self.client.set_terminated(self.id)


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys: {"model": {"name": "cnn"}} -> {"model.name": "cnn"}."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: leaf
        for name, value in values.items()
        for key, leaf in flatten(value, f"{prefix}.{name}".strip(".")).items()
    }
