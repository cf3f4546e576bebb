"""The template's older releases, and projects made from them.

Copier updates from tags. So one temporary repository holds every older release and, as the newest
tag, the working tree.
"""

import atexit
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import copier
import yaml

from tests.aging import age
from tests.render import EXAMPLES, ROOT, copy_template

NEWEST = "v999.0.0"  # the working tree: newer than every release, whatever versions.yml says
SYNTHETIC = "v0.0.1"  # see aging.py
AS_TESTER = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    """What git prints; CalledProcessError when it fails."""
    command = ["git", *AS_TESTER, "-c", "core.autocrlf=false", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8").stdout


@cache
def releases() -> dict[str, str]:
    """Every older release, the oldest first: tag -> commit.

    Until there are tags: the commits that set another version than today's. A shallow clone shows neither.
    """
    if not (ROOT / ".git").exists() or not git(ROOT, "rev-list", "--all", "--max-count=1"):
        return {}
    tags = git(ROOT, "tag", "--list", "v[0-9]*.[0-9]*.[0-9]*", "--merged", "HEAD", "--sort=v:refname").split()
    if tags:
        return {tag: git(ROOT, "rev-list", "--max-count=1", tag).strip() for tag in tags}
    found: dict[str, str] = {}
    for commit in git(ROOT, "log", "--reverse", "--format=%H", "-G^template:", "--", "versions.yml").split():
        if git(ROOT, "ls-tree", commit, "versions.yml"):
            found["v" + yaml.safe_load(git(ROOT, "show", f"{commit}:versions.yml"))["template"]] = commit
    found.pop("v" + yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["template"], None)
    return found


def extract(commit: str, folder: Path) -> None:
    """Put the files of an older commit into `folder`."""
    done = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")


@cache
def temporary() -> Path:
    """A folder that goes when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="ml-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def template_repository() -> Path:
    """The repository with the tags SYNTHETIC, every release, and NEWEST."""
    folder = temporary() / "template"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for tag, commit in {SYNTHETIC: None, **releases(), NEWEST: None}.items():
        for path in folder.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if commit:
            extract(commit, folder)
        else:
            copy_template(folder)
        if tag == SYNTHETIC:
            age(folder)
        commit_all(folder, tag)
        git(folder, "tag", tag)
    return folder


def commit_all(folder: Path, message: str) -> None:
    """Commit everything that is not ignored; no commit when nothing changed."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)


def answers_of(release: str, example: str) -> dict[str, Any] | None:
    """An example as it was at a release; None if there was none by that name."""
    if release not in releases():
        return EXAMPLES[example]
    file = f"examples/{example}.yml"
    there = git(ROOT, "ls-tree", releases()[release], file)
    return yaml.safe_load(git(ROOT, "show", f"{releases()[release]}:{file}")) if there else None


def cases() -> list[tuple[str, str]]:
    """Every older release with each of its examples that there still is."""
    older = (SYNTHETIC, *releases())
    return [(tag, name) for tag in older for name in sorted(EXAMPLES) if answers_of(tag, name) is not None]


@cache
def rendered(release: str, example: str) -> Path:
    """A committed project, made once by a release of the template."""
    project = temporary() / "projects" / f"{release}-{example}"
    source = str(template_repository())
    copier.run_copy(
        source, project, answers_of(release, example), vcs_ref=release, defaults=True, quiet=True, unsafe=False
    )
    git(project, "init", "--quiet")
    commit_all(project, "made")
    return project


def make_project(folder: Path, release: str, example: str) -> Path:
    """A committed project of one's own to edit, in `folder`."""
    shutil.copytree(rendered(release, example), folder)
    return folder


def update(project: Path, answers: Mapping[str, Any] | None = None, to: str = NEWEST) -> None:
    """What `copier update --defaults` does to a project."""
    copier.run_update(project, dict(answers or {}), vcs_ref=to, defaults=True, overwrite=True, quiet=True, unsafe=False)


def conflicts(project: Path) -> list[str]:
    """The files that git calls unmerged."""
    return sorted({line.split("\t")[1] for line in git(project, "ls-files", "--unmerged").splitlines()})
