"""`copier update` that cannot work says why, leaves with an exit code and changes nothing.

Where copier knows no sentence of its own, the last lines that it prints name the cause,
as it has not seen the template yet.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.aging import change
from tests.edits import files
from tests.history import NEWEST, SYNTHETIC, commit_all, git, make_project

ANSWERS = ".copier-answers.yml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", SYNTHETIC, "lightning")


def fail(
    project: Path, *arguments: str, path: str | None = None, defaults: Sequence[str] = ("--defaults",)
) -> list[str]:
    """Update as typed; the lines of stderr, after checking that nothing changed."""
    before = files(project), git(project, "status", "--porcelain")
    environment = {**os.environ, "LC_ALL": "C"} | ({} if path is None else {"PATH": path})
    done = subprocess.run(
        [sys.executable, "-m", "copier", "update", *defaults, *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode != 0
    assert (files(project), git(project, "status", "--porcelain")) == before
    return [line for line in done.stderr.splitlines() if line.strip()]


def test_dirty_tree(project: Path) -> None:
    (project / "README.md").write_text("ours\n", "utf-8")
    (line,) = fail(project)
    assert "is dirty" in line and "commit or stash" in line


def test_gpu_without_a_build_of_the_recorded_framework(project: Path) -> None:
    """Whether copier asks the other questions or not."""
    for defaults in (["--defaults"], []):
        lines = fail(project, "--data", "gpu=12.9", defaults=defaults)
        assert "PyTorch has no build for CUDA 12.9" in " ".join(lines)
        assert "Traceback" not in "".join(lines)


def test_answer_given_that_is_not_offered(project: Path) -> None:
    lines = fail(project, "--data", "gpu=10.2")
    assert lines[0].startswith("gpu: choose") and '"10.2" is not one of them' in lines[0]
    assert "Traceback" not in "".join(lines)


def test_recorded_choice_that_no_longer_exists(project: Path) -> None:
    """Copier alone would silently take the default instead."""
    change(project / ANSWERS, r"^dataset: .*", "dataset: svhn")
    change(project / "src/configs/config.yaml", r"^  - data: .*", "  - data: svhn")
    commit_all(project, "as it was chosen when there was svhn")
    text = " ".join(fail(project))
    assert '"svhn" is not one of them' in text and "dataset: choose digits" in text
    assert "Traceback" not in text


def test_downgrade(project: Path) -> None:
    change(project / ANSWERS, r"^_commit: .*", f"_commit: {NEWEST}")
    commit_all(project, "from the future")
    (line,) = fail(project, "--vcs-ref", SYNTHETIC)
    assert "Downgrades are not supported" in line


def test_project_without_git_repository(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(project, bare, ignore=shutil.ignore_patterns(".git"))
    before = {path: path.read_bytes() for path in bare.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "copier", "update", "--defaults"]
    done = subprocess.run(command, cwd=bare, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    assert done.stderr.split("\n")[:-1] == ["Updating is only supported in git-tracked subprojects."]
    assert {path: path.read_bytes() for path in bare.rglob("*") if path.is_file()} == before


def test_project_without_answers(project: Path) -> None:
    git(project, "rm", "--quiet", ANSWERS)
    commit_all(project, "no answers")
    assert fail(project)[-1].endswith("Template not found")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/folder", "Local template must be a directory."),
        ("git+file:///no/such/repository.git", "does not appear to be a git repository"),
    ],
)
def test_source_that_is_gone(project: Path, source: str, reason: str) -> None:
    change(project / ANSWERS, r"^_src_path: .*", f"_src_path: {source}")
    commit_all(project, "moved")
    assert reason in " ".join(fail(project)[-6:])


def test_no_git_on_path(project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "'git'" in fail(project, path=str(tmp_path / "empty"))[-1]
