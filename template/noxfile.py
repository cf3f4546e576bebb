# /// script
# requires-python = ">=3.10"
# dependencies = ["nox"]
# ///
"""The project's checks: `nox` runs them all, `nox -s smoke` one of them, each in an environment of its own.

`nox --no-venv` uses the environment that is active, and installs nothing.
"""

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


def install(session: nox.Session) -> None:
    """Install what the project and its checks need, unless the active environment is used."""
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-r", "requirements-cpu.txt", "-r", "requirements-dev.txt")


if __name__ == "__main__":
    nox.main()
