"""Put an existing project under this template, so that `copier update` works in it.

    python -m tools.adopt ../old-project                              # guess name and framework
    python -m tools.adopt ../old-project framework=both gpu=13.0      # or answer any question of copier.yml
    python -m tools.adopt ../old-project source=gh:org/ml-template    # set the source of later updates

Keeps the project's files; a file that differs from the template's gets both texts, between conflict markers.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import copier

from tools.adopt_files import AdoptError, git, guess, hidden, plan, unmerged, write

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ".copier-answers.yml"


class Adopted(NamedTuple):
    """What is left to do: files with conflicts, and the template's files that the project's .gitignore hides."""

    conflicts: list[str]
    hidden: list[str]


def adopt(project: Path, given: Mapping[str, str]) -> Adopted:
    """Add missing files, mark differences, and return what is left to do.

    Raises:
        AdoptError: no clean git repository, an existing answers file, or a bad answer; nothing was changed.
    """
    check(project)
    answers = {key: answer for key, answer in given.items() if key != "source"}
    with tempfile.TemporaryDirectory() as folder:
        rendered = Path(folder) / project.name
        render(rendered, given.get("source") or default_source(), answers, guess(project))
        theirs = {path.relative_to(rendered).as_posix(): path for path in rendered.rglob("*") if path.is_file()}
        planned, conflicts = plan(project, theirs)
        write(project, planned)
        stages = [stage for name in conflicts for stage in unmerged(project, name, theirs[name])]
    git(project, "update-index", "--index-info", text="".join(stages))
    return Adopted(conflicts, hidden(project, theirs))


def check(project: Path) -> None:
    """Raise AdoptError unless this is the clean top folder of a git repository without an answers file."""
    if not project.is_dir():
        raise AdoptError(f"{project} is not a folder: give the project's folder.")
    try:
        prefix, state = git(project, "rev-parse", "--show-prefix").strip(), git(project, "status", "--porcelain")
        git(project, "rev-parse", "--verify", "HEAD")
    except FileNotFoundError:
        raise AdoptError("git is not on PATH: install it.") from None
    except subprocess.CalledProcessError:
        raise AdoptError(
            f"{project} is not a git repository with a commit: run git init, git add and git commit first."
        ) from None
    if prefix:
        raise AdoptError(f"{project} is inside another git repository: give that repository's top folder.")
    if state:
        raise AdoptError(f"{project} has uncommitted changes: commit or stash them first.")
    if (project / ANSWERS).exists():
        raise AdoptError(f"{project} already has {ANSWERS}: run copier update in it instead.")


def default_source() -> str:
    """The address that this template was cloned from, or this folder."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return git(ROOT, "remote", "get-url", "origin").strip()
    return str(ROOT)


def render(folder: Path, source: str, given: Mapping[str, str], guessed: Mapping[str, str]) -> None:
    """Render a project into `folder`; on a terminal copier asks, with the guesses as defaults."""
    asks = sys.stdin.isatty()
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            copier.run_copy(source, folder, dict(given), user_defaults=dict(guessed), defaults=not asks, unsafe=False)
    except Exception as error:  # copier raises whatever git, YAML and Jinja do
        said = [line for line in told.getvalue().splitlines() if line.strip()] or str(error).splitlines()
        raise AdoptError(f"Cannot render the template: {said[0]}") from error


def main(arguments: list[str]) -> int:
    """Adopt `PATH [KEY=VALUE ...]` and print what to do next."""
    if not arguments or any("=" not in argument for argument in arguments[1:]):
        print((__doc__ or "").strip())
        return 2
    try:
        left = adopt(Path(arguments[0]), dict(argument.split("=", 1) for argument in arguments[1:]))
    except AdoptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name in left.conflicts:
        print(f"differs: {name}")
    for name in left.hidden:
        print(f"ignored: {name}")
    print(f"Adopted; resolve the {len(left.conflicts)} files with conflicts, marked <<<<<<<, and commit.")
    if left.hidden:
        print("Git ignores the files above: start the rule that names a folder with a slash, as in /data/, first.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
