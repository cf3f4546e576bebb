"""A run's checkpoints, of which it keeps the best and the last: written so that no crash costs one, then checked."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.kit.config import UserError
from src.kit.run import has_checkpoint, read_info
from src.kit.storage import checksum, partial_path, read_intact, remove, sort_paths, sweep, sync, write_json, write_text
from src.kit.trackers import flatten

DESCRIPTION, INDEX, WEIGHTS = "checkpoint.json", "index.json", "model.safetensors"
SIGNS = {"max": 1, "min": -1}


class Checkpoints:
    """The folder `checkpoints/`: a folder for each kept checkpoint, and index.json, which names the best and the last.

    A checkpoint's own checkpoint.json says what it is and how its files must be; index.json can be made from them.
    """

    def __init__(self, folder: Path, keep_best: int, keep_last: int, mode: str) -> None:
        self.folder, self.keep_best, self.keep_last, self.mode = folder, keep_best, keep_last, mode
        self.entries = list_checkpoints(folder)

    def add(self, epoch: int, step: int, score: float | None, save: Callable[[Path], None]) -> None:
        """Let `save(folder)` write a checkpoint, enter it in the index, then delete those that are no longer kept.

        A checkpoint within an epoch has no score: it can be the last and not the best.
        """
        name = f"epoch={epoch:03d}-step={step:06d}"
        entry: dict[str, Any] = {"name": name, "epoch": epoch, "step": step, "score": score, "mode": self.mode}
        partial = partial_path(self.folder / name)
        remove(partial)
        partial.mkdir(parents=True)
        try:
            save(partial)
            entry = seal(partial, entry, self.folder.parent)
            remove(self.folder / name)
            os.replace(partial, self.folder / name)
        except BaseException:
            remove(partial)
            raise
        sync(self.folder)
        self.entries = [entry for entry in self.entries if entry["name"] != name] + [entry]
        ranked = rank(self.entries)
        keep = {entry["name"] for entry in ranked[: max(self.keep_best, 1)] + self.entries[-max(self.keep_last, 1) :]}
        dropped = [entry["name"] for entry in self.entries if entry["name"] not in keep]
        self.entries = [entry for entry in self.entries if entry["name"] in keep]
        write_index(self.folder, self.entries)
        for old in dropped:  # only now: a crash before this line leaves one folder too many, never one too few
            remove(self.folder / old)


def seal(folder: Path, entry: dict[str, Any], run: Path) -> dict[str, Any]:
    """Write checkpoint.json: what a checkpoint is, its files' checksums, and the run's configuration and run.json.

    Returns:
        `entry` with `files`: name -> bytes and sha256. All of it is on the disk.
    """
    paths = sort_paths(path for path in folder.iterdir() if path.is_file())
    files = {path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)} for path in paths}
    entry = {**entry, "files": files}
    config = run / "config.yaml"
    copies = {"config": config.read_text("utf-8") if config.is_file() else "", "run": read_intact(run / "run.json")}
    content = {**entry, **copies}
    write_json(folder / DESCRIPTION, {**content, "sha256": fingerprint(content)}, wait=False)
    for path in (*paths, folder / DESCRIPTION, folder):
        sync(path)
    return entry


def fingerprint(content: Mapping[str, Any]) -> str:
    """SHA-256 of a description, whatever the order of its keys."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_description(folder: Path) -> dict[str, Any]:
    """A checkpoint's checkpoint.json, or an empty mapping if it is missing or not as it was written."""
    content = read_intact(folder / DESCRIPTION)
    expected = content.pop("sha256", None)
    return content if fingerprint(content) == expected and is_entry(content, folder.name) else {}


def is_entry(entry: Any, name: str) -> bool:
    """Whether `entry` describes the checkpoint `name`."""
    if not isinstance(entry, dict) or entry.get("name") != name or not isinstance(entry.get("files"), dict):
        return False
    numbers = all(isinstance(entry.get(key), int) for key in ("epoch", "step"))
    files = all(isinstance(file, dict) and {"bytes", "sha256"} <= file.keys() for file in entry["files"].values())
    return numbers and files and isinstance(entry.get("score"), int | float | None) and entry.get("mode") in SIGNS


def list_folders(folder: Path) -> dict[str, dict[str, Any]]:
    """Checkpoint's name -> what it is, by its checkpoint.json or else by index.json; empty if neither says."""
    index = read_intact(folder / INDEX).get("checkpoints")
    rows = [row for row in index if isinstance(row, dict)] if isinstance(index, list) else []
    named = {row["name"]: row for row in rows if is_entry(row, str(row.get("name")))}
    names = sorted(path.name for path in folder.glob("epoch=*") if path.is_dir())
    return {name: read_description(folder / name) or named.get(name, {}) for name in names}


def list_checkpoints(folder: Path) -> list[dict[str, Any]]:
    """What the checkpoints in a folder are, oldest first."""
    return sorted(filter(None, list_folders(folder).values()), key=lambda entry: (entry["epoch"], entry["step"]))


def rank(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with a score, best first; among equals the later one, whose loss is usually lower.

    NaN is no score: a last step can leave weights that are none, and would be the best in any order.
    """
    scored = [entry for entry in entries if entry["score"] is not None and not math.isnan(entry["score"])]
    return sorted(scored, key=lambda entry: (SIGNS[entry["mode"]] * entry["score"], entry["step"]), reverse=True)


def write_index(folder: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write index.json; nothing waits until it is on the disk, since the folders say the same."""
    last, public = entries[-1]["name"], ("name", "epoch", "step", "score", "mode", "files")
    best = (rank(entries) or entries[-1:])[0]["name"]
    rows = [{key: entry[key] for key in public} for entry in entries]
    write_json(folder / INDEX, {"best": best, "last": last, "checkpoints": rows}, wait=False)


def parts_of(state: Mapping[str, Any], loader: Any, batches: int) -> list[Any]:
    """The parts of an epoch that are over, as `loader.position` tells them, by the state of a training loop.

    Args:
        batches: in an epoch. Earlier versions stored them, and how many were over.

    Raises:
        UserError: an earlier version stored another number of them, which says nothing about the samples.
    """
    if "parts" in state or not state["batch"]:
        return list(state.get("parts", []))
    if state.get("batches", batches) != batches:
        raise UserError(
            f"This checkpoint is of an earlier version, within an epoch of {state['batches']} batches, which are "
            f"{batches} now: go on with as many processes and samples in a batch as it was written with."
        )
    return list(loader.position(state["batch"]))


def find_checkpoint(run: Path, which: str) -> Path:
    """Folder of the `best` or the `last` checkpoint of a run, or of the one with that name.

    Raises:
        UserError: the run has no checkpoint, or none of that name, or its weights are damaged.
    """
    entries = list_checkpoints(run / "checkpoints")
    if not entries:
        raise UserError(without_checkpoint(run))
    chosen = {entry["name"]: entry for entry in entries}
    chosen |= {"last": entries[-1], "best": (rank(entries) or entries[-1:])[0]}
    names = ", ".join(entry["name"] for entry in entries)
    if which not in chosen:
        raise UserError(f"{run} has no checkpoint {which!r}: choose best, last or one of {names}.")
    folder = run / "checkpoints" / chosen[which]["name"]
    if reason := damage(folder, chosen[which], [WEIGHTS]):
        raise UserError(f"{folder} is damaged: {reason}; choose another one with checkpoint=NAME, of {names}.")
    return folder


def without_checkpoint(run: Path) -> str:
    """The sentence on a run without a checkpoint."""
    if has_checkpoint(run):
        return f"No checkpoint in {run} is whole: train again with `python scripts/train.py --from {run}`."
    if (run / "run.json").is_file():  # killed or still training: both record "running"
        return f"{run} has no checkpoint yet. If it crashed, restart it with `python scripts/train.py --from {run}`."
    return f"{run} holds no checkpoint: train first, with `python scripts/train.py`."


def damage(folder: Path, entry: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """What is wrong with a checkpoint's files, of which only `names` are looked at if given; "" if nothing is.

    Raises:
        UserError: this user may not read them.
    """
    if not entry:
        return f"{DESCRIPTION} is missing or damaged"
    for name in names or entry["files"]:
        path, expected = folder / name, entry["files"].get(name)
        try:
            if not expected or not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes in place of {expected['bytes']}"
            if checksum(path) != expected["sha256"]:
                return f"{name} has other bytes than were written"
        except PermissionError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def find_resumable(run: Path, main: bool) -> tuple[Path, list[str]]:
    """The newest checkpoint that is whole, to go on from, and what had to be repaired, for the log.

    Rank 0 (`main`) deletes what is damaged or newer, since it will be trained again, and restores run.json, index.json.

    Raises:
        UserError: no checkpoint is whole; nothing has been changed then.
    """
    folder, notes = run / "checkpoints", []
    found = list_folders(folder)
    damages = {name: damage(folder / name, entry) for name, entry in found.items()}
    whole = [entry for entry in list_checkpoints(folder) if not damages[entry["name"]]]
    if not whole:
        raise UserError(without_checkpoint(run) + "".join(f" {name}: {why}." for name, why in damages.items()))
    last, kept = whole[-1], []
    for name, entry in found.items():
        newer = bool(entry) and (entry["epoch"], entry["step"]) > (last["epoch"], last["step"])
        if damages[name]:
            notes.append(f"The checkpoint {name} is damaged: {damages[name]}.")
        if entry and not newer and not (damages[name] and damage(folder / name, entry, [WEIGHTS])):
            kept.append(entry)  # one that only lacks the optimizer can still be the best
        elif main:
            remove(folder / name)
    if notes:
        notes.append(f"Continuing from {last['name']}, the newest checkpoint that is whole.")
    if main:
        sweep(run)
        write_index(folder, sorted(kept, key=lambda entry: (entry["epoch"], entry["step"])))
        notes += restore_info(run, whole)
    return folder / last["name"], notes


def restore_info(run: Path, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Take run.json from the newest checkpoint if it is missing or damaged; return what to say about it."""
    try:
        if read_info(run):
            return []
    except UserError:
        pass
    copy: dict[str, Any] = next((entry["run"] for entry in reversed(entries) if entry.get("run")), {})
    write_json(run / "run.json", copy)
    return ["run.json was missing or damaged: it is that of the checkpoint."]


def restore_config(run: Path) -> None:
    """Take config.yaml from the newest checkpoint if it is missing, damaged or cut short; warn if it has changed."""
    copies = [entry["config"] for entry in list_checkpoints(run / "checkpoints") if entry.get("config")]
    if not copies:
        return
    path, before = run / "config.yaml", flat_config(copies[-1])
    try:
        now = flat_config(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException):
        now = {}
    if before.keys() - now.keys():
        sys.stderr.write(f"warning: {path} was missing or damaged: it is that of the newest checkpoint.\n")
        write_text(path, copies[-1])
    elif changed := sorted(key for key in before if before[key] != now[key]):
        sys.stderr.write(f"warning: {path} has changed since the newest checkpoint: {', '.join(changed)}.\n")


def flat_config(text: str) -> dict[str, Any]:
    """Dotted key -> value of a configuration's text."""
    cfg = OmegaConf.create(text)
    return flatten(OmegaConf.to_container(cfg, resolve=False)) if isinstance(cfg, DictConfig) else {}
