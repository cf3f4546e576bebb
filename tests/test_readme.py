"""Every command in the README runs: here, or in `nox -s smoke`, which has the frameworks."""

import re
import subprocess
import sys
from pathlib import Path

from tests.readme import commands
from tests.render import ROOT, render
from tests.smoke import README_COMMANDS

README = ROOT / "README.md"
RENDERING = ["pip install copier", "copier copy gh:org/ml-template myproj", "cd myproj"]
NOX = ["python3 noxfile.py -s demo", "python3 noxfile.py"]


def test_every_command_is_known() -> None:
    smoke = ["pip install -r requirements-cpu.txt", *README_COMMANDS]
    assert commands(README) == [*RENDERING, *smoke, *NOX]
    assert all(command.startswith("python scripts/") for command in README_COMMANDS)


def test_rendering_as_typed(github: dict[str, str], tmp_path: Path) -> None:
    """In an environment that has copier; --defaults as nobody answers."""
    [copy] = [command for command in RENDERING if command.startswith("copier")]
    command = [sys.executable, "-m", *copy.split(), "--defaults"]
    done = subprocess.run(command, cwd=tmp_path, env=github, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / RENDERING[-1].split()[1] / "requirements-cpu.txt").is_file()


def test_nox_has_the_sessions() -> None:
    done = subprocess.run(
        [sys.executable, "noxfile.py", "--list"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    sessions = re.findall(r"^[*-] (\w+)", done.stdout, re.M)
    assert "demo" in sessions, done.stderr
    assert re.findall(r"^\* (\w+)", done.stdout, re.M) == ["lint", "tests", "project", "smoke"]


def test_the_tree_is_what_is_rendered(tmp_path: Path) -> None:
    render(tmp_path, {})
    folders = re.findall(r"── (\w+)/ ", README.read_text("utf-8"))
    assert len(folders) >= 10
    for folder in folders:
        assert (tmp_path / folder).is_dir() or (tmp_path / "src" / folder).is_dir(), folder


def test_short_and_linked() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 80
    for page in ("README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8")):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"
