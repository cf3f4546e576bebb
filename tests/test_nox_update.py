"""`nox -s update` in a project: one sentence for what is in the way, nothing changed, and conflicts are an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aging import change
from tests.history import NEWEST, SYNTHETIC, commit_all, git, make_project, template_repository

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


def test_edits_follow_renamed_files(tmp_path: Path) -> None:
    """Copier would drop them: here one merges, one conflicts, and one has nowhere to go, which is said."""
    source, project = tmp_path / "source", make_project(tmp_path / "project", NEWEST, "lightning")
    git(template_repository(), "clone", "--quiet", ".", str(source))
    schedules, new = source / "template/src/trainers/schedules", "src/trainers/schedules"
    for name in ("cosine", "constant"):
        change(schedules / f"{name}.py", r'^""".*', f'"""A new first line of {name}.')
        (schedules / f"{name}.py").rename(schedules / f"{name}_renamed.py")
    (source / "template/src/configs/experiment/mnist_fast.yaml").unlink()
    commit_all(source, "renamed")
    git(source, "tag", "v1000.0.0")
    change(project / ANSWERS, r"^_src_path: .*", f"_src_path: {source}")
    with (project / f"{new}/cosine.py").open("a", encoding="utf-8", newline="\n") as file:
        file.write("# our line\n")
    change(project / f"{new}/constant.py", r'^""".*', '"""Our first line.')
    change(project / "src/configs/experiment/mnist_fast.yaml", r"\A", "# ours\n")
    commit_all(project, "ours")
    code, text = update(project)
    cosine = (project / f"{new}/cosine_renamed.py").read_text("utf-8")
    assert "A new first line of cosine." in cosine and cosine.endswith("# our line\n")
    constant = (project / f"{new}/constant_renamed.py").read_text("utf-8")
    assert "Our first line." in constant and "A new first line of constant." in constant and "<<<<<<< yours" in constant
    gone = "src/configs/experiment/mnist_fast.yaml"
    assert f"{gone} is gone, but you had changed it: git show HEAD:{gone}" in text
    assert code != 0 and f"marked <<<<<<< in {new}/constant_renamed.py" in text
    assert text.count(" is gone") == 1 and "Traceback" not in text


def test_conflicts_are_an_error_and_are_listed(project: Path) -> None:
    text = (project / "requirements-cpu.txt").read_text("utf-8")
    ours = "\n".join(line + "  # ours" if line and not line.startswith("#") else line for line in text.splitlines())
    (project / "requirements-cpu.txt").write_text(ours + "\n", "utf-8")
    commit_all(project, "ours")
    code, text = update(project)
    assert code != 0
    assert "marked <<<<<<< in requirements-cpu.txt" in text
