"""Which files `adopt.py` adds to a project, keeps, or marks with conflicts."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

OWNED = ("README.md", "requirements-own.txt", "PROJECT_BUILD_LOG.md")  # _skip_if_exists of copier.yml


class AdoptError(ValueError):
    """One sentence saying why a project cannot be adopted."""


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Run git and return its output; raise CalledProcessError if it fails."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=folder, input=text, check=True, capture_output=True, encoding="utf-8").stdout


def plan(project: Path, theirs: Mapping[str, Path]) -> tuple[dict[str, bytes], list[str]]:
    """Return the files to write with their content, and the names of those with conflicts."""
    planned, conflicts = {}, []
    for name, path in sorted(theirs.items()):
        own, new = project / name, path.read_bytes()
        if own.is_dir() or any(parent.is_file() for parent in own.parents):
            raise AdoptError(f"{name} is a file in the template and a folder here, or vice versa: rename yours.")
        if not own.exists():
            planned[name] = new
        elif name not in OWNED and (merged := merge(own, path)) is not None:
            planned[name], marked = merged
            conflicts += [name] if marked else []
    return planned, conflicts


def merge(own: Path, new: Path) -> tuple[bytes, bool] | None:
    """Both texts, and whether there are conflict markers; None if `own` stays as it is: equal, or one is binary.

    An empty file has nothing to keep: it becomes the template's, such as an empty `src/__init__.py`.
    """
    if b"\r\n" in own.read_bytes():
        new.write_bytes(new.read_bytes().replace(b"\n", b"\r\n"))
    if own.read_bytes() == new.read_bytes():
        return None
    labels = ["-L", "yours", "-L", "nothing", "-L", "the template's"]
    command = ["git", "merge-file", "-p", *labels, str(own.resolve()), os.devnull, str(new)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode >= 128 or done.stdout == own.read_bytes():
        return None
    return done.stdout, done.returncode > 0


def write(project: Path, planned: Mapping[str, bytes]) -> None:
    """Write all files, or none if one cannot be written."""
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
        raise AdoptError(f"Cannot write {error.filename} ({error.strerror}); nothing was changed.") from error


def unmerged(project: Path, name: str, theirs: Path) -> list[str]:
    """Lines for git's index that mark a file as unmerged until it is added again."""
    entry = git(project, "ls-files", "--stage", "--", name)
    if not entry:
        return []  # ignored by git
    mode, ours, _ = entry.split("\t")[0].split()
    new = git(project, "hash-object", "-w", "--", str(theirs)).strip()
    return [f"0 {'0' * len(ours)}\t{name}\n", f"{mode} {ours} 2\t{name}\n", f"{mode} {new} 3\t{name}\n"]
