"""Move files with errors to <root>/.quarantine/<time>/, and put them back.

The manifest is written before anything moves, so that a move that was cut short can be undone like a whole one.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.kit.checks.files import Source
from src.kit.checks.issues import Finding
from src.kit.config import UserError
from src.kit.run import read_json, write_json

FOLDER = ".quarantine"
MANIFEST = "manifest.json"
NEW = ".new"  # ends the name of an annotation file that is about to take another's place


def quarantine(source: Source, findings: Sequence[Finding]) -> Path | None:
    """Move the images with an error and their label files, all or none; None where there is nothing to move.

    An annotation file of many images moves too, and one without those images takes its place.
    """
    errors: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity == "error":
            errors.setdefault(finding.path, []).append(finding.sentence)
    images = {entry.path for entry in source.entries} & errors.keys()
    moved = sorted(images.union(*(source.labels_of(path) for path in images)))
    rewritten = source.rewrite(set(errors))
    if not moved and not rewritten:
        return None
    target = new_folder(source.root / FOLDER)
    manifest = {
        "moved": [*moved, *rewritten],
        "rewritten": {path: sha256(content) for path, content in rewritten.items()},
        "reasons": {path: errors[path] for path in sorted(errors)},
    }
    write_json(target / MANIFEST, manifest)
    try:
        for path in moved:
            move(source.root / path, target / path)
        for path, content in rewritten.items():
            new = target / f"{path}{NEW}"
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content)
            move(source.root / path, target / path)
            move(new, source.root / path)
    except OSError as error:
        restore_one(source.root, target)
        raise UserError(f"Nothing was moved: {error.filename} cannot be ({error.strerror}).") from error
    return target


def new_folder(parent: Path) -> Path:
    """Make a folder that is named by the time; within one second the names are numbered."""
    name, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while (folder := parent / (f"{name}-{number}" if number > 1 else name)).exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def restore(root: Path) -> int:
    """Put everything back, the newest quarantine first, and return the number of files.

    Raises:
        UserError: a file is in the way or gone. Then that quarantine and the older ones stay as they are.
    """
    found = [path for path in (root / FOLDER).glob("*") if (path / MANIFEST).is_file()]
    found.sort(key=lambda folder: (folder.name[:15], len(folder.name), folder.name), reverse=True)
    return sum(restore_one(root, folder) for folder in found)


def restore_one(root: Path, folder: Path) -> int:
    """Undo one quarantine, all or nothing."""
    moved, rewritten = read_manifest(folder)
    waiting = [path for path in moved if check_place(root / path, folder / path, rewritten.get(path))]
    replaced = {path: (root / path).read_bytes() for path in waiting if os.path.lexists(root / path)}
    done: list[str] = []
    try:
        for path in waiting:
            move(folder / path, root / path)
            done.append(path)
    except OSError as error:
        for path in done:
            move(root / path, folder / path)
        for path, content in replaced.items():
            (root / path).write_bytes(content)
        raise UserError(f"Nothing was put back: {error.filename} cannot be ({error.strerror}).") from error
    for path in rewritten:
        (folder / f"{path}{NEW}").unlink(missing_ok=True)
    (folder / MANIFEST).unlink()
    for parent in [*(parent for parent, _, _ in os.walk(folder, topdown=False)), str(folder.parent)]:
        if not os.listdir(parent):
            os.rmdir(parent)
    return len(waiting)


def read_manifest(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The paths that were moved, and the SHA-256 of what took the place of some."""
    try:
        manifest: Any = read_json(folder / MANIFEST)
        moved, rewritten = list(manifest["moved"]), dict(manifest["rewritten"])
        # data sets are passed on with whatever lies in their folders: no manifest may reach outside
        safe = all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in moved)
    except (ValueError, KeyError, TypeError):
        safe = False
    if not safe:
        raise UserError(f"{folder / MANIFEST} is damaged: move the files back by hand.")
    return moved, rewritten


def check_place(place: Path, waiting: Path, replacement: str | None) -> bool:
    """Whether the file waits to be moved back; refuses where another one than the `replacement` would be lost."""
    if not os.path.lexists(waiting):
        if os.path.lexists(place):
            return False  # it was never moved
        raise UserError(f"{waiting} is gone, so nothing of its quarantine was put back: move the rest by hand.")
    if os.path.lexists(place) and (replacement is None or sha256(place.read_bytes()) != replacement):
        raise UserError(f"{place} is in the way of its old version in {waiting}: move it, then run --restore again.")
    return True


def sha256(content: bytes) -> str:
    """The checksum of a file's content."""
    return hashlib.sha256(content).hexdigest()


def move(source: Path, target: Path) -> None:
    """Move a file into a folder that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
