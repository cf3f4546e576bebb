"""The run folder `outputs/<name>-<time>/`: everything that one training leaves behind, and how it was made."""

import csv
import json
import logging
import os
import shutil
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from omegaconf import DictConfig

from src.kit.config import UserError, write_config
from src.kit.run.progress import Progress
from src.kit.run.provenance import describe
from src.kit.run.run_files import open_log, read_json, read_rows, write_json
from src.kit.trackers import Tracker, open_tracker


def is_main_process() -> bool:
    """Whether this process writes the run folder: the only one, or rank 0 of several."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "PADDLE_TRAINER_ID"))
    return int(next((rank for rank in ranks if rank), "0")) == 0


class Run:
    """An open run folder; on leaving, it records how the run ended, and removes itself if there is no checkpoint."""

    def __init__(self, cfg: DictConfig, path: Path | None = None) -> None:
        """Create `<output_dir>/<name>-<time>`, or open `path` to go on in it. Only rank 0 writes."""
        self.main = is_main_process()
        self.log = logging.getLogger("train")
        self.started, self.created = time.time(), path is None
        given = path or (None if self.main else Path(os.environ["RUN_DIR"]))
        self.path = given or new_folder(Path(cfg.output_dir), cfg.name)
        os.environ["RUN_DIR"] = str(self.path)  # ranks that a launcher starts find the folder here
        self.info = read_json(self.path / "run.json")
        if self.main:
            self.handlers = open_log(self.log, self.path / "train.log")
            write_config(cfg, self.path / "config.yaml")
            self.update(status="running", **(describe(cfg) if not path else {}))
        self.tracker, self.progress = Tracker(), Progress(shown=self.main)
        try:
            self.tracker = open_tracker(cfg, self.path) if self.main else self.tracker
        except UserError as error:
            self.__exit__(UserError, error, None)
            raise

    def update(self, **values: Any) -> None:
        """Set keys of run.json, which is replaced as a whole."""
        self.info = {**read_json(self.path / "run.json"), **values}
        if self.main:
            write_json(self.path / "run.json", self.info)

    def log_epoch(self, row: dict[str, float]) -> None:
        """Append one epoch to metrics.jsonl, metrics.csv and the tracker."""
        if not self.main:
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with (self.path / "metrics.csv").open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        self.log.debug("%s", row)
        self.tracker.log({name: value for name, value in row.items() if "/" in name}, int(row["step"]))

    def keep_epochs(self, last: int) -> None:
        """Forget the metrics after epoch `last`: a resumed run writes them again."""
        if not self.main:
            return
        rows = read_rows(self.path / "metrics.jsonl")
        for name in ("metrics.jsonl", "metrics.csv"):
            (self.path / name).unlink(missing_ok=True)
        for row in rows:
            if row["epoch"] <= last:
                self.log_epoch(row)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        if not self.main:
            return
        self.tracker.close()
        self.update(status="failed" if kind else "finished", duration_s=self.info.get("duration_s") or self.seconds())
        if kind:
            self.log.debug("failed: %s", error)
        for handler in self.handlers:
            self.log.removeHandler(handler)
            handler.close()
        if kind and self.created and not (self.path / "checkpoints" / "index.json").exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def seconds(self) -> float:
        """Time since this run was opened."""
        return round(time.time() - self.started, 3)


def new_folder(parent: Path, name: str) -> Path:
    """Make `<parent>/<name>-<time>`; a second run within the same second gets a number."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError(f"a thousand runs named {stem}")
