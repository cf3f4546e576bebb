"""Render the template as its users do, without trust and without questions.

python -m tests.render       # renew tests/expected/*.txt after adding or removing a file of template/
"""

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import copier
import yaml

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted((ROOT / "examples").glob("*.yml"))}
EXPECTED = ROOT / "tests" / "expected"
RENDERING = threading.Lock()  # for what renders in several threads
PARTS = (
    *("copier.yml", "versions.yml", "questions", "template"),
    *("cookiecutter.json", "cookiecutter_door.py", "hooks", "{{cookiecutter.project_slug}}"),
)
CACHES = (".*_cache", ".hypothesis", "__pycache__", "outputs", ".nox", ".venv")


@cache
def clean_copy() -> Path:
    """The template as it is now, outside git: copier would render a repository's last release instead."""
    folder = Path(tempfile.mkdtemp(prefix="ml-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy_template(folder)
    return folder


def copy_template(folder: Path) -> None:
    """Put what copier needs of this repository into `folder`."""
    for name in PARTS:
        source = ROOT / name
        if source.is_file():
            shutil.copy2(source, folder / name)
        else:
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*CACHES))


def render(project: Path, answers: Mapping[str, Any]) -> None:
    """Make a project of these answers and the defaults; PACKAGE_INDEX replaces the answer `package_index`."""
    index = os.environ.get("PACKAGE_INDEX")
    data = {**answers, "package_index": index} if index else dict(answers)
    copier.run_copy(str(clean_copy()), project, data=data, defaults=True, quiet=True, unsafe=False)


def files_of(project: Path) -> list[str]:
    """The paths of a project's files, sorted, with / on every system."""
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file())


def renew_expected() -> None:
    """Write the file list of each example."""
    shutil.rmtree(EXPECTED, ignore_errors=True)
    EXPECTED.mkdir()
    for name, answers in EXAMPLES.items():
        with tempfile.TemporaryDirectory() as folder:
            render(Path(folder), answers)
            (EXPECTED / f"{name}.txt").write_bytes("".join(f"{file}\n" for file in files_of(Path(folder))).encode())


if __name__ == "__main__":
    renew_expected()
