"""The template's older releases, and projects made from them.

Copier updates from tags. So one temporary repository holds every older release and, as the newest tag, the working tree.
"""

import atexit
import io
import re
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

from tests.render import EXAMPLES, PARTS, ROOT, copy_template

NEWEST = "v999.0.0"  # the working tree: newer than every release, whatever versions.yml says
SYNTHETIC = "v0.0.1"  # see `age`
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
    """Put what copier needs of an older commit into `folder`."""
    there = set(git(ROOT, "ls-tree", "--name-only", commit).splitlines())
    archive = ["git", "archive", "--format=tar", commit, *(name for name in PARTS if name in there)]
    done = subprocess.run(archive, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        files.extractall(folder, filter="data")


def age(folder: Path) -> None:
    """Make the template in `folder` look like an older release, by undoing what releases typically bring.

    One package gets an older pin; one experiment does not exist yet; README, build log, the defaults, the data sets'
    registry and every eighth other file of src/ and scripts/ have a line that reads otherwise and lack a later one.
    """
    template = folder / "template"
    change(folder / "versions.yml", r"^template: .*", f"template: {SYNTHETIC[1:]}")
    change(folder / "versions.yml", r"safetensors==[\d.]+", "safetensors==0.7.0")
    change(template / "README.md.jinja", r"^## .*", "## An older headline")
    change(template / "PROJECT_BUILD_LOG.md.jinja", r"^What was tried.*", "An older sentence.")
    change(template / "src/configs/config.yaml.jinja", r"^log_every_n_steps: \d+", "log_every_n_steps: 49")
    change(template / "src/datasets/__init__.py", r'^""".*"""', '"""An older docstring."""')
    sorted((template / "src/configs/experiment").glob("*.yaml"))[0].unlink()
    sources = [path for name in ("src", "scripts") for path in sorted((template / name).rglob("*.py"))]
    for path in sources[::8]:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if len(lines) > 30:
            lines[10] = f"# an older line 11 of {path.name}\n"
            del lines[25]
            path.write_text("".join(lines), "utf-8", newline="\n")


def change(path: Path, pattern: str, new: str) -> None:
    """Replace the first match of a regular expression, which must be there."""
    text, count = re.subn(pattern, lambda _: new, path.read_text("utf-8"), count=1, flags=re.M)
    assert count == 1, f"{path} has nothing like {pattern}"
    path.write_text(text, "utf-8", newline="\n")


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


@cache
def rendered(release: str, example: str) -> Path:
    """A committed project, made once by a release of the template."""
    project = temporary() / "projects" / f"{release}-{example}"
    source = str(template_repository())
    copier.run_copy(source, project, EXAMPLES[example], vcs_ref=release, defaults=True, quiet=True, unsafe=False)
    git(project, "init", "--quiet")
    commit_all(project, "made")
    return project


def make_project(folder: Path, release: str, example: str) -> Path:
    """A committed project of one's own to edit, in `folder`."""
    shutil.copytree(rendered(release, example), folder)
    return folder


def update(project: Path, answers: Mapping[str, Any] | None = None, to: str = NEWEST) -> None:
    """What `copier update --defaults` does to a project."""
    copier.run_update(
        project, dict(answers or {}), vcs_ref=to, defaults=True, overwrite=True, quiet=True, unsafe=False
    )


def conflicts(project: Path) -> list[str]:
    """The files that git calls unmerged."""
    return sorted({line.split("\t")[1] for line in git(project, "ls-files", "--unmerged").splitlines()})
