"""A run's checkpoints, of which it keeps the best and the last, and splits.json: the samples that it used."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.kit.catalog import SPLITS
from src.kit.config import UserError
from src.kit.loading import FileImages, Split
from src.kit.run import read_json
from src.kit.training.experiment import Experiment


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


def describe_splits(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Split -> its number of samples, their ids and the SHA-256 of ids and classes.

    An id is the number in the publisher's order, or the file's path below `data.root`. Data that list no ids, such as
    streams, have the number of samples only.

    Raises:
        UserError: a split has no samples, its files are missing, or the data are of no use for `cfg.task`.
    """
    root = Path(experiment.cfg.data.get("root", "."))
    return {name: describe_split(experiment.split(name), root) for name in SPLITS}


def describe_split(dataset: Any, root: Path) -> dict[str, Any]:
    """One split's part of splits.json."""
    ids = list_ids(dataset, root)
    if ids is None:
        return {"samples": len(dataset)}
    labels = dataset.targets if isinstance(dataset, Split) else dataset.has_classes()
    digest = sha256(json.dumps(ids).encode() + labels.tobytes()).hexdigest()
    return {"samples": len(dataset), "sha256": digest, "ids": ids}


def list_ids(dataset: Any, root: Path) -> list[Any] | None:
    """The ids of a split's samples: its own, or its files' paths below `root`."""
    if isinstance(dataset, Split) and dataset.ids is not None:
        ids: list[Any] = dataset.ids.tolist()
        return ids
    if not isinstance(dataset, Split):  # annotated images
        paths: Sequence[Path] = [dataset.path(index) for index in range(len(dataset))]
    elif isinstance(dataset.images, FileImages):
        paths = dataset.images.paths
    else:
        return None
    root = root.expanduser()
    return [(path.relative_to(root) if path.is_relative_to(root) else path).as_posix() for path in paths]


def write_splits(splits: dict[str, dict[str, Any]], folder: Path) -> None:
    """Write splits.json, a line for each split, whole or not at all."""
    lines = [f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in splits.items()]
    partial = folder / ".splits.json"
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    os.replace(partial, folder / "splits.json")


def compare_splits(splits: dict[str, dict[str, Any]], run: Path) -> list[str]:
    """Differences from the samples of an earlier run, such as "train (1,259 samples, now 1,260)"."""
    return [
        f"{name} ({before['samples']:,} samples, now {splits[name]['samples']:,})"
        for name, before in read_json(run / "splits.json").items()
        if summary(before) != summary(splits[name])
    ]


def count_trained(experiment: Experiment, run: Path, split: str) -> int:
    """How many samples of a split a run was trained on; 0 if unknown, as for data from elsewhere."""
    trained = read_json(run / "splits.json").get("train", {}).get("ids")
    before, data = OmegaConf.load(run / "config.yaml").data, experiment.cfg.data
    if not trained or any(data.get(key) != before.get(key) for key in ("name", "root")):
        return 0
    ids = list_ids(experiment.split(split), Path(data.get("root", ".")))
    return len(set(trained).intersection(ids or ()))


def refuse_other_data(splits: dict[str, dict[str, Any]], run: Path) -> None:
    """Refuse to continue a run with other samples: it would validate on what it was trained on.

    Raises:
        UserError: names the splits that differ.
    """
    if changed := compare_splits(splits, run):
        raise UserError(
            f"The data have changed since {run} started: {', '.join(changed)}; restore them, or start over with "
            f"--from {run}."
        )


def summary(part: dict[str, Any]) -> tuple[int, str | None]:
    """What two descriptions of the same samples share."""
    return part["samples"], part.get("sha256")
