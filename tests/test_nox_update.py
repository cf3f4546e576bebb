"""`nox -s update` in a project: one sentence for what is in the way, nothing changed, and conflicts are an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aging import change
from tests.history import NEWEST, SYNTHETIC, commit_all, make_project

ANSWERS = ".copier-answers.yml"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", SYNTHETIC, "lightning")


def update(project: Path, path: str | None = None) -> tuple[int, str]:
    """Run it as typed; the exit code and what nox says, without its own lines."""
    command = [sys.executable, "-m", "nox", "--no-venv", "-s", "update", "--", "--defaults"]
    search = path if path is not None else os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": search, "NOXPYTHON": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def refused(project: Path, path: str | None = None) -> str:
    before = snapshot(project)
    code, text = update(project, path)
    assert code != 0
    assert "Traceback" not in text
    assert snapshot(project) == before
    return text


def snapshot(project: Path) -> dict[Path, bytes]:
    own = (path for path in project.rglob("*") if path.is_file() and not {".git", ".nox"} & set(path.parts))
    return {path: path.read_bytes() for path in own}


def test_it_updates(project: Path) -> None:
    code, text = update(project)
    assert code == 0, text
    assert NEWEST in (project / ANSWERS).read_text("utf-8")


def test_dirty_tree(project: Path) -> None:
    (project / "README.md").write_text("ours\n", "utf-8")
    assert "commit or stash them" in refused(project)


def test_no_answers(project: Path) -> None:
    (project / ANSWERS).unlink()
    commit_all(project, "no answers")
    assert "nox -s adopt" in refused(project)


def test_source_that_is_gone(project: Path, tmp_path: Path) -> None:
    change(project / ANSWERS, r"^_src_path: .*", f"_src_path: {tmp_path / 'gone'}")
    commit_all(project, "moved")
    assert "Cannot reach the template" in refused(project)


def test_no_repository(project: Path) -> None:
    shutil.rmtree(project / ".git")
    assert "git init" in refused(project)


def test_no_git(project: Path, tmp_path: Path) -> None:
    assert "git is not on PATH" in refused(project, path=str(tmp_path))


def test_conflicts_are_an_error_and_are_listed(project: Path) -> None:
    text = (project / "requirements-cpu.txt").read_text("utf-8")
    ours = "\n".join(line + "  # ours" if line and not line.startswith("#") else line for line in text.splitlines())
    (project / "requirements-cpu.txt").write_text(ours + "\n", "utf-8")
    commit_all(project, "ours")
    code, text = update(project)
    assert code != 0
    assert "marked <<<<<<< in requirements-cpu.txt" in text
