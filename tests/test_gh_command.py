"""The README's own command: `copier copy gh:org/ml-template myproj`, as typed, without --trust."""

import subprocess
import sys
from pathlib import Path

import yaml

from tests.render import ROOT, files_of, render


def test_copy_from_github_as_typed(github: dict[str, str], tmp_path: Path) -> None:
    command = ["copier", "copy", "gh:org/ml-template", "myproj", "--defaults"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=github,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Copying from template version 9.8.7" in done.stderr
    project = tmp_path / "myproj"
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert answers["_commit"] == "v9.8.7"
    assert answers["_src_path"] == "gh:org/ml-template"
    render(tmp_path / "local", {"project_name": answers["project_name"]})
    assert files_of(project) == files_of(tmp_path / "local")
    same = [name for name in files_of(project) if name != ".copier-answers.yml"]
    assert all((project / name).read_bytes() == (tmp_path / "local" / name).read_bytes() for name in same)


def test_the_repository_holds_what_is_rendered() -> None:
    """A file that git ignores would be in every test and in no user's project."""
    names = [
        f"template/{name}"
        for name in files_of(ROOT / "template")
        if not any(part in name for part in ("cache", ".venv/", ".hypothesis/"))
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=False,
    )
    ignored = [name for name in done.stdout.split() if not name.endswith(".hardware.json")]
    assert ignored == []
