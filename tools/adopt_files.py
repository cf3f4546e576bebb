"""What `adopt.py` guesses from a project's files, and which it adds, keeps, or marks with conflicts."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

OWNED = ("README.md", "requirements-own.txt", "PROJECT_BUILD_LOG.md")  # _skip_if_exists of copier.yml
CODE, PACKAGES = ("*.py", "*.ipynb"), ("requirements*.txt", "pyproject.toml", "environment*.y*ml", "setup.*")
# what code imports (a notebook's lines are in quotes) and what lists of packages name, as in "torch>=2" or - pytorch=2
IMPORTS, NAMES = r"^[\s\"]*(?:import|from)\s+(?:{})\b", r"(?:^|[\s\"'])(?:{})(?![\w./])"
USES = {
    "lightning": ("torch|pytorch_lightning|lightning", "torch|pytorch|lightning|pytorch-lightning"),
    "paddle": ("paddle", "paddlepaddle|paddlepaddle-gpu"),
}


class AdoptError(ValueError):
    """One sentence saying why a project cannot be adopted."""


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Run git and return its output; raise CalledProcessError if it fails."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=folder, input=text, check=True, capture_output=True, encoding="utf-8").stdout


def guess(project: Path) -> dict[str, str]:
    """Guess the name from the folder, and the framework from imports and lists of packages."""
    name = re.sub(r"[^\w.&(),'+!-]+", " ", project.resolve().name).strip(" ._-&(,'+!")[:60].strip()
    code, lists = (tracked_text(project, patterns) for patterns in (CODE, PACKAGES))
    used = [
        framework
        for framework, (modules, packages) in USES.items()
        if re.search(IMPORTS.format(modules), code, re.M) or re.search(NAMES.format(packages), lists, re.M)
    ]
    guessed = {"framework": used[0] if len(used) == 1 else "both"} if used else {}
    return guessed | ({"project_name": name} if name else {})


def tracked_text(project: Path, patterns: tuple[str, ...]) -> str:
    """The text of the files that git tracks under these names."""
    names = git(project, "ls-files", "-z", *patterns).split("\0")
    return "\n".join((project / name).read_text("utf-8", "replace") for name in names if (project / name).is_file())


def plan(project: Path, theirs: Mapping[str, Path]) -> tuple[dict[str, bytes], list[str]]:
    """Return the files to write with their content, and the names of those with conflicts."""
    planned, conflicts = {}, []
    for name, path in sorted(theirs.items()):
        own, new = project / name, path.read_bytes()
        if own.is_dir() or any(parent.is_file() for parent in own.parents):
            raise AdoptError(f"{name} is a file in the template and a folder here, or vice versa: rename yours.")
        if not own.exists():
            planned[name] = new
        elif name == ".gitignore":
            planned[name] = extend(own.read_bytes(), new)
        elif name not in OWNED and (merged := merge(own, path)) is not None:
            planned[name], marked = merged
            conflicts += [name] if marked else []
    return planned, conflicts


def extend(own: bytes, new: bytes) -> bytes:
    """A .gitignore with the rules that it lacks at its end: rules of both sides never contradict each other."""
    end = b"\r\n" if b"\r\n" in own else b"\n"
    known = {line.strip() for line in own.splitlines()}
    missing = [line for line in new.splitlines() if line and not line.startswith(b"#") and line not in known]
    if not missing:
        return own
    return own.rstrip() + 2 * end + end.join([b"# From the project's template", *missing]) + end if own.strip() else new


def hidden(project: Path, names: Iterable[str]) -> list[str]:
    """Files that git would not add, each with the rule that hides it, as in `src/configs/data/mnist.yaml (data/)`."""
    command = ["git", "-c", "core.quotePath=false", "check-ignore", "-v", "-z", "--stdin"]
    done = subprocess.run(
        command, cwd=project, input="\0".join(names), capture_output=True, encoding="utf-8", check=False
    )
    fields = done.stdout.split("\0")[:-1]
    return [f"{name} ({rule})" for rule, name in zip(fields[2::4], fields[3::4], strict=True)]


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
