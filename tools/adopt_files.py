"""The files of a project that `adopt.py` brings under the template: which to add, which to keep, which to mark."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

OWNED = ("README.md", "requirements-own.txt", "PROJECT_BUILD_LOG.md")  # _skip_if_exists of copier.yml


class AdoptError(ValueError):
    """Why a project cannot be adopted, in one sentence."""


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """What git prints; CalledProcessError when it fails."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=folder, input=text, check=True, capture_output=True, encoding="utf-8").stdout


def plan(project: Path, theirs: Mapping[str, Path]) -> tuple[dict[str, bytes], list[str]]:
    """What to write into which file, and which of them hold conflicts."""
    planned, conflicts = {}, []
    for name, path in sorted(theirs.items()):
        own, new = project / name, path.read_bytes()
        if own.is_dir() or any(parent.is_file() for parent in own.parents):
            raise AdoptError(
                f"{name} is a file in the template and a folder here, or the other way round: rename yours."
            )
        if not own.exists():
            planned[name] = new
        elif name not in OWNED and (text := merge(own, path)) is not None:
            planned[name] = text
            conflicts.append(name)
    return planned, conflicts


def merge(own: Path, new: Path) -> bytes | None:
    """Both texts with markers around what differs; None if nothing does, or one is no text."""
    if b"\r\n" in own.read_bytes():
        new.write_bytes(new.read_bytes().replace(b"\n", b"\r\n"))
    if own.read_bytes() == new.read_bytes():
        return None
    labels = ["-L", "yours", "-L", "nothing", "-L", "the template's"]
    command = ["git", "merge-file", "-p", *labels, str(own.resolve()), os.devnull, str(new)]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout if 0 < done.returncode < 128 else None


def write(project: Path, planned: Mapping[str, bytes]) -> None:
    """Write all files or, when one cannot be written, none."""
    before = {name: (project / name).read_bytes() if (project / name).exists() else None for name in planned}
    made: list[Path] = []
    try:
        for name, text in planned.items():
            missing = [folder for folder in (project / name).parents if not folder.exists()]
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            made += [*reversed(missing)]
            (project / name).write_bytes(text)
    except OSError as error:
        for name, old in before.items():
            with contextlib.suppress(OSError):
                (project / name).unlink() if old is None else (project / name).write_bytes(old)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise AdoptError(f"{error.filename} cannot be written ({error.strerror}), so nothing was changed.") from error


def unmerged(project: Path, name: str, theirs: Path) -> list[str]:
    """Lines for git's index that make a file count as in conflict until it is added again."""
    entry = git(project, "ls-files", "--stage", "--", name)
    if not entry:
        return []  # ignored by git
    mode, ours, _ = entry.split("\t")[0].split()
    new = git(project, "hash-object", "-w", "--", str(theirs)).strip()
    return [f"0 {'0' * len(ours)}\t{name}\n", f"{mode} {ours} 2\t{name}\n", f"{mode} {new} 3\t{name}\n"]
