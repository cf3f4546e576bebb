"""Move files with errors to <root>/.quarantine/<time>/, and put them back.

The manifest is written before anything moves, so that an interrupted move can be undone like a complete one.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.kit.checks.findings import Finding, ImageFiles
from src.kit.config import UserError
from src.kit.run import read_json, write_json

FOLDER = ".quarantine"
MANIFEST = "manifest.json"
NEW = ".new"  # suffix of a rewritten file until it replaces the original


def quarantine(source: ImageFiles, findings: Sequence[Finding]) -> Path | None:
    """Move the images with errors and their companion files, all or none. Returns the folder, None if nothing moved.

    A file that lists several images is moved too, and replaced by one that lists the remaining images.

    Raises:
        UserError: a file can't be moved; then all of them are back in place.
    """
    errors: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity == "error":
            errors.setdefault(finding.path, []).append(finding.sentence)
    images = {entry.path for entry in source.entries} & errors.keys()
    moved = sorted(images.union(*(source.companions(path) for path in images)))
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
        raise UserError(f"Nothing was moved, because {error.filename} can't be: {error.strerror}.") from error
    return target


def new_folder(parent: Path) -> Path:
    """Make a folder named after the time, with a number if several are made within one second."""
    name, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while (folder := parent / (f"{name}-{number}" if number > 1 else name)).exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def restore(root: Path) -> int:
    """Undo all quarantines, newest first, and return the number of files.

    Raises:
        UserError: a file is in the way or missing; then this and the older quarantines stay as they are.
    """
    found = [path for path in (root / FOLDER).glob("*") if (path / MANIFEST).is_file()]
    found.sort(key=lambda folder: (folder.name[:15], len(folder.name), folder.name), reverse=True)
    return sum(restore_one(root, folder) for folder in found)


def restore_one(root: Path, folder: Path) -> int:
    """Undo one quarantine, all or nothing."""
    moved, rewritten = read_manifest(folder)
    waiting = [path for path in moved if must_move_back(root / path, folder / path, rewritten.get(path))]
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
        raise UserError(f"Nothing was put back, because {error.filename} can't be moved: {error.strerror}.") from error
    for path in rewritten:
        (folder / f"{path}{NEW}").unlink(missing_ok=True)
    (folder / MANIFEST).unlink()
    for parent in [*(parent for parent, _, _ in os.walk(folder, topdown=False)), str(folder.parent)]:
        if not os.listdir(parent):
            os.rmdir(parent)
    return len(waiting)


def read_manifest(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The paths that were moved, and path -> SHA-256 of the replacements.

    Raises:
        UserError: the manifest is damaged, or names a path outside the folder.
    """
    try:
        manifest: Any = read_json(folder / MANIFEST)
        moved, rewritten = list(manifest["moved"]), dict(manifest["rewritten"])
        # data sets are shared together with what lies in their folders: no manifest may reach outside
        safe = all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in moved)
    except (ValueError, KeyError, TypeError):
        safe = False
    if not safe:
        raise UserError(f"{folder / MANIFEST} is damaged: move the files back by hand.")
    return moved, rewritten


def must_move_back(original: Path, waiting: Path, replacement: str | None) -> bool:
    """Whether the file was moved.

    Raises:
        UserError: it is missing, or moving it back would overwrite something else than its `replacement`.
    """
    if not os.path.lexists(waiting):
        if os.path.lexists(original):
            return False  # it was never moved
        raise UserError(f"{waiting} is gone, so nothing from its quarantine was put back: move the rest by hand.")
    if os.path.lexists(original) and (replacement is None or sha256(original.read_bytes()) != replacement):
        raise UserError(f"{original} is in the way of its old version in {waiting}: move it, then run --restore again.")
    return True


def sha256(content: bytes) -> str:
    """SHA-256 as hexadecimal text."""
    return hashlib.sha256(content).hexdigest()


def move(source: Path, target: Path) -> None:
    """Move a file, creating the target's folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
