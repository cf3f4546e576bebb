# /// script
# requires-python = ">=3.10"
# dependencies = ["nox"]
# ///
"""The project's checks: `nox` runs all, `nox -s smoke` one, each in its own environment.

`nox --no-venv` uses the active environment and installs nothing.
"""

import os
import re
import shutil
import subprocess
import sys
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
    """Run the tests; pass arguments to pytest after `--`."""
    install(session)
    session.run("pytest", *session.posargs)


@nox.session
def smoke(session: nox.Session) -> None:
    """Train a small network on the digits for one epoch and evaluate it: seconds on a CPU."""
    install(session)
    options = ["task=classification", "tracker=none", "trainer.max_epochs=1"]
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "scripts/train.py", *options, f"output_dir={folder}")
        [config] = Path(folder).glob("*/config.yaml")
        session.run("python", "scripts/eval.py", str(config.parent))


@nox.session(default=False, venv_backend="none")
def setup(session: nox.Session) -> None:
    """Create .venv for the CPU, the first stage of two; the second is a GPU container."""
    python = Path(".venv", "Scripts/python.exe" if os.name == "nt" else "bin/python").absolute()
    files = ["-r", "requirements-cpu.txt", "-r", "requirements-dev.txt"]
    if shutil.which("uv"):
        session.run("uv", "venv", "--allow-existing", "--python", sys.executable, ".venv")
        session.run("uv", "pip", "install", "--python", str(python), *files)
    else:
        session.run(sys.executable, "-m", "venv", ".venv")
        session.run(str(python), "-m", "pip", "install", *files)
    packages = next(python.parents[1].rglob("site-packages"))
    (packages / "project.pth").write_text(f"{Path.cwd()}\n", "utf-8")  # `from src import ...` works from any folder
    write_owner(Path("deploy", ".env"))
    session.run(str(python), "scripts/doctor.py")
    session.log("Next: %s, then python scripts/train.py", activation())


@nox.session(default=False)
def update(session: nox.Session) -> None:
    """Update from the template with `copier update`, and explain in one sentence what goes wrong.

    Pass arguments to copier after `--`, such as `--defaults` or `--data framework=both`.
    """
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("copier")
    answers = Path(".copier-answers.yml")
    source = (
        re.search(r"^_src_path: *[\"']?(.*?)[\"']?$", answers.read_text("utf-8"), re.M) if answers.exists() else None
    )
    if not source:
        session.error(
            "There is no .copier-answers.yml with a _src_path: run `nox -s adopt` in a clone of the template."
        )
    if not shutil.which("git"):
        session.error("git is not on PATH: install it, copier needs it.")
    if git("rev-parse", "--verify", "HEAD").returncode:
        session.error("This is not a git repository with a commit: run git init, git add . and git commit first.")
    if git("status", "--porcelain").stdout:
        session.error("There are uncommitted changes: commit or stash them, then update.")
    address = source[1].removeprefix("git+").replace("gh:", "https://github.com/").replace("gl:", "https://gitlab.com/")
    if git("ls-remote", address).returncode:
        session.error(f"Cannot reach the template {source[1]}: check the network, or _src_path in {answers}.")
    session.run("copier", "update", *session.posargs, external=True)
    conflicts = git("diff", "--name-only", "--diff-filter=U").stdout.split("\n")[:-1]
    if conflicts:
        session.error(f"Resolve the conflicts marked <<<<<<< in {', '.join(conflicts)}, then git add the files.")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write requirements-cpu.lock: every package with its hash, for this system and Python.

    `-- gpu` locks requirements-gpu.txt. uv gets the options: `-- gpu --python-platform linux --python-version 3.11`.
    """
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("uv")
    name, options = "cpu", list(session.posargs)
    if options and not options[0].startswith("-"):
        name = options.pop(0)
    wanted, locked = Path(f"requirements-{name}.txt"), Path(f"requirements-{name}.lock")
    if not wanted.exists():
        session.error(f"There is no {wanted}: choose cpu or gpu.")
    written = Path(session.create_tmp()) / locked.name
    said = " ".join(["nox -s lock --", name, *options])  # uv would record this machine's indexes
    command = ["uv", "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--custom-compile-command", said]
    session.run(*command, str(wanted), "-o", str(written), *options, external=True)
    where_from = [line for line in wanted.read_text("utf-8").splitlines() if line.startswith("--")]
    locked.write_text("\n".join([*where_from, written.read_text("utf-8")]), "utf-8", newline="\n")


def write_owner(settings: Path) -> None:
    """Tell Compose, in deploy/.env, which user containers write files as; on Windows and macOS it does not matter."""
    if hasattr(os, "getuid") and not settings.exists():
        settings.write_text(f"HOST_UID={os.getuid()}\nHOST_GID={os.getgid()}\n", "utf-8")


def activation() -> str:
    """The command that activates .venv."""
    return r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in this project, without prompts."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=environment)


def install(session: nox.Session) -> None:
    """Install the project's and its checks' packages, unless the active environment is used."""
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-r", "requirements-cpu.txt", "-r", "requirements-dev.txt")


if __name__ == "__main__":
    nox.main()
