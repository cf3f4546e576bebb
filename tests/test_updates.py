"""A year after generation: `copier update` keeps what users wrote, and answers can still be changed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.aging import AGED, change
from tests.edits import files
from tests.history import (
    NEWEST,
    SYNTHETIC,
    answers_of,
    cases,
    commit_all,
    conflicts,
    git,
    make_project,
    releases,
    template_repository,
    update,
)
from tests.render import EXAMPLES, files_of, render

CASES = cases()
# The user's own from the first day on, so never the template's:
OWNED = ("README.md", "PROJECT_BUILD_LOG.md", "src/models/lightning/ours.py", "src/models/paddle/ours.py")
OWNED += ("src/configs/model/ours.yaml", "src/datasets/leaves.py", "src/configs/data/leaves.yaml")
OWNED += ("src/configs/experiment/first_try.yaml", "requirements-own.txt")

NETWORK = '''"""Our network."""


def build(*, classes: int, channels: int, image_size: int, width: int = 8) -> None:
    """Nothing yet.

    Args:
        width: Channels of the first layer.
    """
'''
DATASET = '''"""Our leaves."""


def build(split, *, image_size: int = 8) -> None:
    """Nothing yet.

    Args:
        image_size: Height and width in pixels.
    """
'''


def test_releases_are_found() -> None:
    tags = [SYNTHETIC, *releases()]
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", tag) for tag in tags)
    assert {release for release, _ in CASES} == set(tags)


def edit_as_users_do(project: Path) -> dict[str, list[str]]:
    """Change a project as its users do, commit, and tell which lines they wrote in which file."""
    written: dict[str, list[str]] = {}

    def write(name: str, *lines: str) -> None:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")
        written[name] = list(lines)

    def insert(name: str, before: str, line: str) -> None:
        change(project / name, rf"(?=^{before})", line + "\n")
        written.setdefault(name, []).append(line)

    def append(name: str, line: str) -> None:
        with (project / name).open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
        written.setdefault(name, []).append(line)

    for name in ("README.md", "PROJECT_BUILD_LOG.md"):
        insert(name, "## ", "Our own words – the first ones.")
        text = (project / name).read_text("utf-8")
        (project / name).write_text(text + "The last ones.\n", "utf-8", newline="\n")
        written[name].append("The last ones.")
    for backend in ("lightning", "paddle"):
        if (project / "src/models" / backend).is_dir():
            write(f"src/models/{backend}/ours.py", *NETWORK.splitlines())
    write("src/configs/model/ours.yaml", "name: ours", "tasks: [classification]", "width: 31")
    write("src/datasets/leaves.py", *DATASET.splitlines())
    write("src/configs/data/leaves.yaml", "name: leaves", "image_size: 48")
    append(AGED, "# our note")
    write("src/configs/experiment/first_try.yaml", "optimizer: {lr: 0.0123}")
    change(project / "src/configs/config.yaml", r"^seed: \d+", "seed: 20311")
    written["src/configs/config.yaml"] = ["seed: 20311"]
    change(project / "requirements-cpu.txt", r"^matplotlib==.*", "matplotlib==3.9.4")
    written["requirements-cpu.txt"] = ["matplotlib==3.9.4"]
    append("requirements-cpu.txt", "seaborn==0.13.2")
    append("requirements-own.txt", "pandas==2.3.3")
    commit_all(project, "our work")
    return written


def missing(project: Path, written: dict[str, list[str]]) -> list[str]:
    """The lines of the users that are no longer where they wrote them."""
    return [
        f"{name}: {line}"
        for name, lines in written.items()
        for line in lines
        if not (project / name).exists() or line not in (project / name).read_text("utf-8").splitlines()
    ]


def marked(project: Path) -> list[str]:
    """The files that hold conflict markers."""
    return sorted(name for name, text in files(project).items() if re.search(rb"^<<<<<<< ", text, re.M))


@pytest.mark.parametrize(("release", "example"), CASES)
def test_edits_survive(release: str, example: str, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", release, example)
    written = edit_as_users_do(project)
    update(project)
    assert missing(project, written) == []
    assert conflicts(project) == marked(project), "every conflict is marked, and git knows of it"
    assert not set(conflicts(project)) & set(OWNED)
    assert list(project.rglob("*.rej")) == []
    assert f"_commit: {NEWEST}" in (project / ".copier-answers.yml").read_text("utf-8")
    if release == SYNTHETIC:
        assert conflicts(project) == [], "these edits and that release have no line in common"
        assert "An older" in (project / "README.md").read_text("utf-8"), "the README is the user's"
    if example == "both":  # it has every file
        commit_all(project, "updated")
        update(project)
        assert git(project, "status", "--porcelain") == "", "a second update has nothing left to change"


@pytest.mark.parametrize(("release", "example"), CASES)
def test_unedited_project_becomes_a_fresh_one(
    release: str, example: str, tmp_path: Path, projects: dict[str, Path]
) -> None:
    project = make_project(tmp_path / "project", release, example)
    update(project)
    fresh = projects[example]
    if answers_of(release, example) != EXAMPLES[example]:  # as it was then
        fresh = tmp_path / "fresh"
        render(fresh, recorded(project))
    assert different(project, fresh) == []
    assert (answers_of(release, example) or {}).items() <= recorded(project).items()


def recorded(project: Path) -> dict[str, Any]:
    """The answers that copier has on record."""
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    return {key: answer for key, answer in answers.items() if not key.startswith("_") and key != "template_version"}


def different(project: Path, fresh: Path) -> list[str]:
    """The files that differ from those of a fresh project; the user's two aside."""
    names = {name for name in files_of(project) if not name.startswith(".git/")} | set(files_of(fresh))
    names -= {".copier-answers.yml", "README.md", "PROJECT_BUILD_LOG.md"}
    same = [name for name in names if (project / name).is_file() and (fresh / name).is_file()]
    same = [name for name in same if (project / name).read_bytes() == (fresh / name).read_bytes()]
    return sorted(names - set(same))


def test_same_line_changed_by_both_is_marked(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", SYNTHETIC, "lightning")
    change(project / "src/configs/config.yaml", r"^log_every_n_steps: .*", "log_every_n_steps: 7")
    (project / "src/configs/experiment").mkdir(exist_ok=True)
    fresh = tmp_path / "fresh"
    render(fresh, EXAMPLES["lightning"])
    new = [name for name in files_of(fresh) if not (project / name).exists()]
    assert new, "the synthetic release lacks a file"
    (project / new[0]).write_text("ours: a file that the template brings later\n", "utf-8", newline="\n")
    commit_all(project, "our work")
    update(project)
    assert conflicts(project) == marked(project) == sorted(["src/configs/config.yaml", new[0]])
    theirs = re.search(r"^log_every_n_steps: .*", (fresh / "src/configs/config.yaml").read_text("utf-8"), re.M)
    both = (project / "src/configs/config.yaml").read_text("utf-8").splitlines()
    assert theirs and {"log_every_n_steps: 7", theirs[0]} <= set(both)
    assert "ours: a file that the template brings later" in (project / new[0]).read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("example", "answers"),
    [
        ("lightning", {"framework": "both"}),
        ("both", {"framework": "paddle"}),
        ("lightning", {"gpu": "12.6"}),
        ("lightning", {"tracker": "mlflow"}),
        ("lightning-cifar10-wandb", {"tracker": "none", "framework": "paddle", "gpu": "none"}),
    ],
)
def test_answers_can_be_changed(example: str, answers: dict[str, str], tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", SYNTHETIC, example)
    own = project / "src/configs/experiment/first_try.yaml"
    own.parent.mkdir(exist_ok=True)
    own.write_text("optimizer: {lr: 0.0123}\n", "utf-8")
    commit_all(project, "our work")
    update(project, answers)
    assert {**EXAMPLES[example], **answers}.items() <= recorded(project).items()
    render(tmp_path / "fresh", recorded(project))
    assert different(project, tmp_path / "fresh") == ["src/configs/experiment/first_try.yaml"]
    assert own.read_text("utf-8") == "optimizer: {lr: 0.0123}\n"
    assert conflicts(project) == []


def test_updated_project_passes_its_tests(tmp_path: Path) -> None:
    if importlib.util.find_spec("omegaconf") is None:
        pytest.skip("omegaconf is not installed here, so the updated project's tests cannot run")
    project = make_project(tmp_path / "project", SYNTHETIC, "lightning")
    edit_as_users_do(project)
    update(project)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_config.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_template_repository_needs_no_trust() -> None:
    """A release with tasks or extensions could never be updated from again without --trust."""
    tags = git(template_repository(), "tag", "--list").split()
    assert {SYNTHETIC, NEWEST} <= set(tags)
    for tag in tags:
        text = git(template_repository(), "show", f"{tag}:copier.yml")
        assert not re.search(r"^_(tasks|jinja_extensions|migrations):", text, re.M), tag
