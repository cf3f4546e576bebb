"""A year of a project: releases simulated from this repository's own commits, edits before each, nothing lost silently.

python -m tests.simulated_year           # 12 releases, 30 edits before each
python -m tests.simulated_year 4 both    # fewer, and another example

Each update is `copier update` followed by what `nox -s update` adds. Conflicts are counted and resolved by keeping both
sides. Formatters have run over the project: every edited Python file was reformatted, too.
"""

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import copier

from tests.history import commit_all, conflicts, extract, git
from tests.render import EXAMPLES, ROOT

RELEASES, EDITS = 12, 30
MARK = re.compile(r"# ours \d+ \d+")
MARKERS = re.compile(r"^(<{7}|\|{7}|={7}|>{7})( .*)?\n", re.M)


def commits(number: int) -> list[str]:
    """This many commits of the template, evenly spaced, the first and the last among them."""
    found = git(ROOT, "log", "--format=%H", "--reverse", "--", "copier.yml", "template").split()
    return [found[round(place * (len(found) - 1) / (number - 1))] for place in range(number)]


def main(argv: list[str]) -> int:
    """Print a row for each update; 1 if a change was lost without a word."""
    number, example = int(argv[0]) if argv else RELEASES, argv[1] if len(argv) > 1 else "lightning"
    draw, lost = random.Random(0), 0
    with tempfile.TemporaryDirectory() as name:
        source, project = Path(name) / "source", Path(name) / "project"
        tags = release_all(source, commits(number))
        answers = {key: value for key, value in EXAMPLES[example].items() if key in ("framework", "tracker", "task")}
        options: dict[str, Any] = {"defaults": True, "quiet": True, "unsafe": False}
        copier.run_copy(str(source), project, answers, vcs_ref=tags[0], **options)
        git(project, "init", "--quiet")
        commit_all(project, "made")
        print("| update | edits there | conflicts | carried or named | lost |\n|---|---|---|---|---|")
        for step, tag in enumerate(tags[1:]):
            edit(project, step, draw)
            before = marks(project)
            answered = (project / ".copier-answers.yml").read_text("utf-8")
            copier.run_update(project, vcs_ref=tag, overwrite=True, **options)
            said, marked = carry(project, answered)
            named = {mark for file in said for mark in MARK.findall(git(project, "show", f"HEAD:{file}"))}
            missing = before - marks(project) - named
            lost += len(missing)
            for mark in sorted(missing):
                print(f"lost: {mark} of {where(project, mark)}", file=sys.stderr)
            count = len({*conflicts(project), *marked})
            print(f"| {tag} | {len(before)} | {count} | {len(said) + len(marked)} | {len(missing)} |", flush=True)
            for file in files(project):
                text = file.read_text("utf-8")
                file.write_text(MARKERS.sub("", text), "utf-8", newline="\n") if MARKERS.search(text) else None
            commit_all(project, f"updated to {tag}")
    print(f"{lost} changes lost without a word")
    return 1 if lost else 0


def release_all(source: Path, chosen: list[str]) -> list[str]:
    """A repository in which each of these commits is a release."""
    source.mkdir()
    git(source, "init", "--quiet")
    tags = []
    for number, commit in enumerate(chosen):
        git(source, "rm", "-r", "--quiet", "--ignore-unmatch", ".")
        extract(commit, source)
        commit_all(source, commit)
        tags.append(f"v0.{number}.0")
        git(source, "tag", tags[-1])
    return tags


def files(project: Path) -> list[Path]:
    """The project's Python, YAML and Markdown files."""
    listed = ("ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.yaml", "*.md")
    names = sorted(set(git(project, *listed).splitlines()))
    return [project / name for name in names if (project / name).is_file()]


def edit(project: Path, step: int, draw: random.Random) -> None:
    """Write lines of our own into files at random, and format the Python among them."""
    chosen = draw.sample(files(project), EDITS)
    for number, file in enumerate(chosen):
        lines = file.read_text("utf-8").splitlines(keepends=True)
        at = draw.choice([0, len(lines)])  # inside a text or a bracket a comment would be no comment
        lines.insert(at, f"# ours {step} {number}\n")
        file.write_text("".join(lines), "utf-8", newline="\n")
    python = [str(file) for file in chosen if file.suffix == ".py"]
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", *python], cwd=project, check=False)
    commit_all(project, f"our work {step}")


def where(project: Path, mark: str) -> str:
    """The file that held a line before the update, and whether it is still there."""
    name = (
        git(project, "grep", "--name-only", "--fixed-strings", "--word-regexp", mark, "HEAD").split(":", 1)[1].strip()
    )
    return f"{name}, which is {'there' if (project / name).exists() else 'gone'}"


def marks(project: Path) -> set[str]:
    """Our lines, wherever they are now."""
    return {mark for file in files(project) for mark in MARK.findall(file.read_text("utf-8"))}


@cache
def load_noxfile() -> Any:
    """The project's noxfile as it is now: older releases have another."""
    spec = importlib.util.spec_from_file_location("project_noxfile", ROOT / "template/noxfile.py")
    assert spec and spec.loader
    noxfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noxfile)
    return noxfile


def carry(project: Path, answered: str) -> tuple[list[str], list[str]]:
    """What `nox -s update` does after copier: the files that it names as gone, and those that it marks."""
    gone: list[str] = []

    def run(*command: str, **ignored: Any) -> None:
        subprocess.run([sys.executable, "-m", *command], check=False, capture_output=True)

    session = SimpleNamespace(run=run, log=lambda *words: None, warn=lambda text, *words: gone.append(words[0]))
    here = Path.cwd()
    os.chdir(project)
    try:
        return gone, load_noxfile().carry_edits(session, answered)
    finally:
        os.chdir(here)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
