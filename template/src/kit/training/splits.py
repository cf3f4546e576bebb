"""splits.json: the samples that a run used, so that it is neither continued nor judged with others unnoticed."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.kit.catalog import SPLITS
from src.kit.config import UserError
from src.kit.loading import FileImages, Split
from src.kit.storage import read_json, write_text
from src.kit.training.experiment import Experiment


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
    prefix = (root.expanduser() / "_").as_posix()[:-1]  # "" for the current folder
    return [path.as_posix().removeprefix(prefix) for path in paths]


def write_splits(splits: dict[str, dict[str, Any]], folder: Path) -> None:
    """Write splits.json, a line for each split, whole or not at all."""
    lines = [f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in splits.items()]
    write_text(folder / "splits.json", "{\n" + ",\n".join(lines) + "\n}\n")


def read_splits(run: Path) -> dict[str, dict[str, Any]]:
    """A run's splits.json, or an empty mapping if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = run / "splits.json"
    splits = read_json(path)
    for name, part in splits.items():
        if name not in SPLITS or not isinstance(part, dict) or not isinstance(part.get("samples"), int):
            raise UserError(f"{path} is damaged ({name!r}): delete it to go on without comparing the samples.")
        if not all(isinstance(each, str | int) for each in as_list(part.get("ids"))):
            raise UserError(f"{path} is damaged (the ids of {name}): delete it to go on without comparing the samples.")
    return splits


def as_list(ids: Any) -> list[Any]:
    """Ids from a file: a list, or one that no id is part of."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids, None]


def compare_splits(splits: dict[str, dict[str, Any]], run: Path) -> list[str]:
    """Differences from the samples of an earlier run, such as "train (1,259 samples, now 1,260)"."""
    return [
        f"{name} ({before['samples']:,} samples, now {splits[name]['samples']:,})"
        for name, before in read_splits(run).items()
        if summary(before) != summary(splits[name])
    ]


def count_trained(experiment: Experiment, run: Path, split: str) -> int:
    """How many samples of a split a run was trained on; 0 if unknown, as for data from elsewhere."""
    known, before, data = read_splits(run), OmegaConf.load(run / "config.yaml").data, experiment.cfg.data
    trained = known.get("train", {}).get("ids")
    if not trained or any(data.get(key) != before.get(key) for key in ("name", "root")):
        return 0
    ids = list_ids(experiment.split(split), Path(data.get("root", ".")))
    if ids == known.get(split, {}).get("ids"):  # those of the start; a publisher's test split is numbered from 0 too
        return 0
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
