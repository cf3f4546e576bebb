"""The questions as a person meets them: a real `copier copy` on a pseudo-terminal."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.render import clean_copy

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

import pexpect

ENTER, DOWN, CLEAR = "\r", "\x1b[B", "\x15"
DONE = "is ready. Next:"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[pexpect.spawn]:
    """`copier copy TEMPLATE project` in an 80-column terminal."""
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "copier", "copy", str(clean_copy()), "project"],
        cwd=str(tmp_path),
        env=environment,
        encoding="utf-8",
        timeout=20,
        dimensions=(40, 80),
    )
    yield child
    child.close(force=True)


def answers_of(tmp_path: Path) -> dict[str, str]:
    return yaml.safe_load((tmp_path / "project/.copier-answers.yml").read_text("utf-8"))


def finish(child: pexpect.spawn, questions: list[str]) -> None:
    """Accept the defaults of the remaining questions."""
    for question in questions:
        child.expect_exact(question)
        child.send(ENTER)
    child.expect_exact(DONE)
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0


NAME, SLUG, WHAT, WHO, LICENCE = "project's name", "Short name", "one sentence", "Copyright", "Licence of"
HELP = "Help me choose"
FIRST = [NAME, SLUG, WHAT, WHO, LICENCE, HELP]
REST = [
    "CUDA version",
    "What to train",
    "Data set to start",
    "Where to log curves",
    "Optional parts",
    "install packages from",
]


def test_enter_accepts_everything(terminal: pexpect.spawn, tmp_path: Path) -> None:
    finish(terminal, [*FIRST, "Framework to train with", *REST])
    answers = answers_of(tmp_path)
    assert answers["project_name"] == "Project", "the folder's name"
    assert answers["project_slug"] == "project"
    assert answers["extras"] == ["search", "serving"]
    assert answers["framework"] == "lightning"
    assert (tmp_path / "project/src/models/lightning").is_dir()


def test_a_bad_name_is_explained_and_corrected(terminal: pexpect.spawn, tmp_path: Path) -> None:
    terminal.expect_exact(NAME)
    terminal.send(CLEAR + "../x" + ENTER)
    terminal.expect_exact("use letters, digits, spaces . _ -")
    assert not (tmp_path / "project").exists()
    terminal.send(CLEAR + "Leaf doctor" + ENTER)
    finish(terminal, [*FIRST[1:], "Framework to train with", *REST])
    assert answers_of(tmp_path)["project_slug"] == "leaf_doctor"


def test_arrow_keys_choose(terminal: pexpect.spawn, tmp_path: Path) -> None:
    for question in FIRST:
        terminal.expect_exact(question)
        terminal.send(ENTER)
    terminal.expect("Framework to train with.*PyTorch Lightning.*PaddlePaddle.*Both")
    terminal.send(DOWN)
    terminal.expect("»[^\r\n]*PaddlePaddle")
    terminal.send(ENTER)
    for question in REST[:-1]:
        terminal.expect_exact(question)
        terminal.send(ENTER)
    terminal.expect_exact(REST[-1])
    terminal.send(DOWN)
    terminal.expect("»[^\r\n]*China")
    terminal.send(DOWN)
    terminal.expect("»[^\r\n]*mirror")
    terminal.send(ENTER)
    terminal.expect_exact("Address of the mirror")
    terminal.send("https://me:secret@pypi.example.com/simple" + ENTER)
    terminal.expect_exact("leave out user and password")
    terminal.send(CLEAR + "https://pypi.example.com/simple" + ENTER)
    finish(terminal, [])
    project = tmp_path / "project"
    assert answers_of(tmp_path)["framework"] == "paddle"
    assert "--index-url https://pypi.example.com/simple\n" in (project / "requirements-cpu.txt").read_text("utf-8")
    assert not (project / "src/models/lightning").exists()


def test_versions_without_a_build_cannot_be_chosen(terminal: pexpect.spawn, tmp_path: Path) -> None:
    for question in [*FIRST, "Framework to train with"]:
        terminal.expect_exact(question)
        terminal.send(ENTER)
    terminal.expect("- CUDA 12.9 .choose 13.2, 13.0, 12.6 or none")
    terminal.expect("- CUDA 11.8 .choose 13.2, 13.0, 12.6 or none")
    for choice in ("CUDA 13.2", "CUDA 13.0", "CUDA 12.6"):
        terminal.send(DOWN)
        terminal.expect(f"»[^\r\n]*{choice}")
    terminal.send(ENTER)
    finish(terminal, REST[1:])
    assert answers_of(tmp_path)["gpu"] == "12.6"


def test_scores_choose_the_framework(terminal: pexpect.spawn, tmp_path: Path) -> None:
    for question in FIRST[:-1]:
        terminal.expect_exact(question)
        terminal.send(ENTER)
    terminal.expect_exact(HELP)
    terminal.send("y")
    terminal.expect_exact("team's familiarity")
    terminal.send(CLEAR + "6 1" + ENTER)
    terminal.expect_exact("use 1 to 5 twice, as in 4 3")
    terminal.send(CLEAR + "1 5" + ENTER)
    for question in ("Ease of deployment", "Performance", "Community"):
        terminal.expect_exact(question)
        terminal.send(ENTER)
    terminal.expect_exact("Framework to train with (Lightning 3.30, Paddle 4.10).")
    terminal.expect("»[^\r\n]*PaddlePaddle")
    terminal.send(ENTER)
    finish(terminal, REST)
    answers = answers_of(tmp_path)
    assert answers["framework"] == "paddle"
    assert (answers["team_familiarity"], answers["community"]) == ("1 5", "5 3")
    text = (tmp_path / "project/docs/select_framework.md").read_text("utf-8")
    assert "PaddlePaddle is recommended: 4.10 against 3.30." in text


def test_control_c_leaves_nothing(terminal: pexpect.spawn, tmp_path: Path) -> None:
    terminal.expect_exact(NAME)
    terminal.send("\x03")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus != 0
    assert not re.search("Traceback", terminal.before)
    assert list(tmp_path.iterdir()) == []
