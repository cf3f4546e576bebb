"""MLflow: a server, or a local SQLite file `<output_dir>/mlflow.db` that all runs share.

View it with `mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`. MLflow 3 refuses its old file store.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from src.kit.trackers import PROJECT, Tracker, flatten

MAX_VALUE = 6000  # characters of a parameter, and
MAX_PARAMS = 100  # parameters per request: the limits of MLflow's servers
STATUSES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowTracker(Tracker):
    """One MLflow run per training. Uses the client, which leaves MLflow's global state alone."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.id = client, run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def log_picture(self, name: str, path: Path) -> None:
        self.client.log_artifact(self.id, str(path), name)

    def log_results(self, results: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(results, 0)
        for path in files:
            self.client.log_artifact(self.id, str(path))

    def close(self, status: str = "finished") -> None:
        self.client.set_terminated(self.id, STATUSES[status])


def build(run_dir: Path, cfg: dict[str, Any], *, uri: str | None = None, experiment: str | None = None) -> Tracker:
    """Start an MLflow run and record the configuration as its parameters.

    Args:
        uri: MLflow server, such as http://host:5000 (null: the local file outputs/mlflow.db).
        experiment: MLflow experiment (null: the name of the project's folder).
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it announces a new database in five lines
    outputs = run_dir.resolve().parent
    client = MlflowClient(tracking_uri=uri or f"sqlite:///{(outputs / 'mlflow.db').as_posix()}")
    name = experiment or PROJECT
    known = client.get_experiment_by_name(name)
    artifacts = None if uri else (outputs / "mlflow").as_uri()
    experiment_id = known.experiment_id if known else client.create_experiment(name, artifact_location=artifacts)
    run_id = client.create_run(experiment_id, run_name=run_dir.name).info.run_id
    params = [Param(key, str(value)[:MAX_VALUE]) for key, value in flatten(cfg).items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
    return MlflowTracker(client, run_id)
