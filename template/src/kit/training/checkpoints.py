"""A run's checkpoints: it keeps the best by the task's monitored metric, and the last."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.kit.config import UserError


class Checkpoints:
    """The folder `checkpoints/`: one folder per kept checkpoint, and index.json, which names the best and the last."""

    def __init__(self, folder: Path, keep_best: int, keep_last: int, mode: str) -> None:
        self.folder, self.keep_best, self.keep_last = folder, keep_best, keep_last
        self.sign = 1 if mode == "max" else -1
        index = folder / "index.json"
        self.entries: list[dict[str, Any]] = (
            json.loads(index.read_text("utf-8"))["checkpoints"] if index.exists() else []
        )

    def add(self, epoch: int, step: int, score: float | None, save: Callable[[Path], None]) -> None:
        """Let `save(folder)` write a checkpoint, enter it in the index, then delete those that are no longer kept.

        A checkpoint within an epoch has no score: it can be the last and not the best.
        """
        name = f"epoch={epoch:03d}-step={step:06d}"
        temporary = self.folder / f".{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save(temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(self.folder / name, ignore_errors=True)
        os.replace(temporary, self.folder / name)
        self.entries = [entry for entry in self.entries if entry["name"] != name]
        self.entries.append({"name": name, "epoch": epoch, "step": step, "score": score})
        ranked = self.ranked()
        keep = {entry["name"] for entry in ranked[: max(self.keep_best, 1)] + self.entries[-max(self.keep_last, 1) :]}
        dropped = [entry["name"] for entry in self.entries if entry["name"] not in keep]
        self.entries = [entry for entry in self.entries if entry["name"] in keep]
        index = {"best": ranked[0]["name"] if ranked else name, "last": name, "checkpoints": self.entries}
        (self.folder / ".index.json").write_text(json.dumps(index, indent=2), "utf-8")
        os.replace(self.folder / ".index.json", self.folder / "index.json")
        for old in dropped:  # only now: a crash before this line leaves one folder too many, never one too few
            shutil.rmtree(self.folder / old, ignore_errors=True)

    def ranked(self) -> list[dict[str, Any]]:
        """The kept checkpoints, best first; among equals the later one, whose loss is usually lower."""
        scored = [entry for entry in self.entries if entry["score"] is not None]
        return sorted(scored, key=lambda entry: (self.sign * entry["score"], entry["step"]), reverse=True)


def find_checkpoint(run: Path, which: str) -> Path:
    """Folder of the `best` or the `last` checkpoint of a run, or of the one with that name.

    Raises:
        UserError: the run has no checkpoint, or none of that name.
    """
    index = run / "checkpoints" / "index.json"
    if not index.is_file():
        if (run / "run.json").is_file():  # killed or still training: both record "running"
            raise UserError(
                f"{run} has no checkpoint yet. If it crashed, restart it with `python scripts/train.py --from {run}`."
            )
        raise UserError(f"{run} holds no checkpoint: train first, with `python scripts/train.py`.")
    entries = json.loads(index.read_text("utf-8"))
    name = entries.get(which, which) if which in ("best", "last") else which
    if not (run / "checkpoints" / name / "model.safetensors").is_file():
        names = ", ".join(entry["name"] for entry in entries["checkpoints"])
        raise UserError(f"{run} has no checkpoint {which!r}: choose best, last or one of {names}.")
    return run / "checkpoints" / name
