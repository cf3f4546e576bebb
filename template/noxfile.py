# /// script
# requires-python = ">=3.10"
# dependencies = ["nox"]
# ///
"""The project's checks: `nox` runs them all, `nox -s smoke` one of them, each in an environment of its own.

`nox --no-venv` uses the environment that is active, and installs nothing.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests", "smoke"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and types."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; what follows `--` goes to pytest."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session
def smoke(session: nox.Session) -> None:
    """Train a small network on the digits for one epoch, then evaluate it: seconds on a CPU."""
    install(session)
    options = ["data=digits", "tracker=none", "trainer.max_epochs=1"]
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "scripts/train.py", *options, f"output_dir={folder}")
        [config] = Path(folder).glob("*/config.yaml")
        session.run("python", "scripts/eval.py", str(config.parent))


@nox.session(default=False)
def update(session: nox.Session) -> None:
    """Bring the template's improvements in: `copier update`, with one sentence for what goes wrong.

    What follows `--` goes to copier, such as `--defaults` or `--data framework=both`.
    """
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("copier")
    answers = Path(".copier-answers.yml")
    source = (
        re.search(r"^_src_path: *[\"']?(.*?)[\"']?$", answers.read_text("utf-8"), re.M) if answers.exists() else None
    )
    if not source:
        session.error(
            "There is no .copier-answers.yml with a _src_path: bring the project under it with `nox -s adopt`."
        )
    if not shutil.which("git"):
        session.error("git is not on PATH: install it, since copier compares versions with it.")
    if git("rev-parse", "--verify", "HEAD").returncode:
        session.error("This folder is no git repository with a commit: run git init, git add . and git commit first.")
    if git("status", "--porcelain").stdout:
        session.error("There are changes that are not committed: commit or stash them, then update.")
    address = source[1].removeprefix("git+").replace("gh:", "https://github.com/").replace("gl:", "https://gitlab.com/")
    if git("ls-remote", address).returncode:
        session.error(f"The template {source[1]} cannot be reached: mend the network, or _src_path in {answers}.")
    session.run("copier", "update", *session.posargs, external=True)
    conflicts = git("diff", "--name-only", "--diff-filter=U").stdout.split("\n")[:-1]
    if conflicts:
        session.error(f"Look for <<<<<<< in {', '.join(conflicts)}, mend it and git add the file.")


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask git about this project; it never asks back."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=environment)


def install(session: nox.Session) -> None:
    """Install what the project and its checks need, unless the active environment is used."""
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-r", "requirements-cpu.txt", "-r", "requirements-dev.txt")


if __name__ == "__main__":
    nox.main()
