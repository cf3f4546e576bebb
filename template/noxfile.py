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
from typing import Any

import nox

ANSWERS = Path(".copier-answers.yml")

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
    before = ANSWERS.read_text("utf-8") if ANSWERS.exists() else ""
    source = recorded(before, "_src_path")
    if not source:
        session.error("There is no .copier-answers.yml with a _src_path: run `nox -s adopt` in a clone of the template")
    if not shutil.which("git"):
        session.error("git is not on PATH: install it, copier needs it")
    if git("rev-parse", "--verify", "HEAD").returncode:
        session.error("This is not a git repository with a commit: run git init, git add . and git commit first")
    if git("status", "--porcelain").stdout:
        session.error("There are uncommitted changes: commit or stash them, then update")
    address = source.removeprefix("git+").replace("gh:", "https://github.com/").replace("gl:", "https://gitlab.com/")
    if git("ls-remote", address).returncode:
        session.error(f"Cannot reach the template {source}: check the network, or _src_path in {ANSWERS}")
    session.run("copier", "update", *session.posargs, external=True)
    marked = carry_edits(session, before)
    conflicts = sorted({*git("diff", "--name-only", "--diff-filter=U").stdout.split("\n")[:-1], *marked})
    if conflicts:
        session.error(f"Resolve the conflicts marked <<<<<<< in {', '.join(conflicts)}, then git add the files")


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
        session.error(f"There is no {wanted}: choose cpu or gpu")
    written = Path(session.create_tmp()) / locked.name
    said = " ".join(["nox -s lock --", name, *options])  # uv would record this machine's indexes
    command = ["uv", "pip", "compile", "--quiet", "--upgrade", "--generate-hashes", "--custom-compile-command", said]
    session.run(*command, str(wanted), "-o", str(written), *options, external=True)
    where_from = [line for line in wanted.read_text("utf-8").splitlines() if line.startswith("--")]
    locked.write_text("\n".join([*where_from, written.read_text("utf-8")]), "utf-8", newline="\n")


@nox.session(default=False)
def sbom(session: nox.Session) -> None:
    """Write requirements-cpu.cdx.json: what requirements-cpu.lock installs, with hashes, as CycloneDX; or `-- gpu`."""
    name = session.posargs[0] if session.posargs else "cpu"
    locked = Path(f"requirements-{name}.lock")
    if not locked.exists():
        session.error(f"There is no {locked}: run nox -s lock -- {name} first")
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("cyclonedx-bom")
    command = ["cyclonedx-py", "requirements", str(locked), "--output-reproducible", "-o"]
    session.run(*command, str(locked.with_suffix(".cdx.json")), external=True)


def carry_edits(session: nox.Session, before: str) -> list[str]:
    """Merge your changes into files that the template renamed, say which it dropped; return those with conflicts.

    Copier takes a renamed file for one that went and one that came, and drops what you had changed in it. `before` is
    the answers file before the update; the changes themselves are those in HEAD.
    """
    after = ANSWERS.read_text("utf-8")
    if not (recorded(before, "_commit") and recorded(after, "_commit")) or before == after:
        return []
    # With other answers, similar files of two frameworks would look like renamed ones.
    renames = "-M" if answers_in(before) == answers_in(after) else "--no-renames"
    conflicts = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, text in (("old", before), ("new", after)):
            (folder / f"{label}.yml").write_text(answers_in(text), "utf-8")
            options = ["--vcs-ref", recorded(text, "_commit"), "--data-file", str(folder / f"{label}.yml")]
            made = [*options, recorded(text, "_src_path"), str(folder / label)]
            codes = range(256)
            session.run(
                "copier", "copy", "--defaults", "--quiet", *made, external=True, silent=True, success_codes=codes
            )
            if not (folder / label).is_dir():
                session.warn("Could not render %s: see `git diff HEAD` for changes in renamed files.", options[1])
                return []
        listed = git("diff", "--no-index", "--name-status", "-z", renames, "old", "new", cwd=folder)
        words = iter(listed.stdout.split("\0"))
        for status in words:
            if not status:
                continue
            old = next(words).removeprefix("old/")
            new = next(words).removeprefix("new/") if status[0] == "R" else ""
            mine = folder / "mine"
            mine.write_bytes(git("show", f"HEAD:{old}", text=False).stdout)
            base = folder / "old" / old
            if status[0] not in "DR" or git("cat-file", "-e", f"HEAD:{old}").returncode:
                continue  # still there, or you had removed it
            if mine.read_bytes().split() == base.read_bytes().split():
                continue
            target, theirs = Path(new or old), folder / "new" / new
            merged = git("merge-file", "-p", "-L", "yours", "-L", "", "-L", "template", mine, base, theirs, text=False)
            if not new or merged.returncode > 127 or target.read_bytes() != theirs.read_bytes():
                session.warn("%s is gone, but you had changed it: git show HEAD:%s", old, old)
                continue
            target.write_bytes(merged.stdout)
            session.log("%s is now %s, with your changes", old, new)
            conflicts += [new] if merged.returncode else []
    return conflicts


def recorded(answers: str, key: str) -> str:
    """A value of an answers file, or an empty text."""
    found = re.search(rf"^{key}: *[\"']?(.*?)[\"']?$", answers, re.M)
    return found[1] if found else ""


def answers_in(text: str) -> str:
    """The answers file without what copier itself records."""
    return re.sub(r"^(_|template_version).*\n", "", text, flags=re.M)


def write_owner(settings: Path) -> None:
    """Tell Compose, in deploy/.env, which user containers write files as; on Windows and macOS it does not matter."""
    if hasattr(os, "getuid") and not settings.exists():
        settings.write_text(f"HOST_UID={os.getuid()}\nHOST_GID={os.getgid()}\n", "utf-8")


def activation() -> str:
    """The command that activates .venv."""
    return r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"


def git(*arguments: str | Path, cwd: Path | None = None, text: bool = True) -> subprocess.CompletedProcess[Any]:
    """Run git in this project, without prompts; its output is bytes without `text`."""
    command = ["git", "-c", "core.quotePath=false", *map(str, arguments)]
    encoding = "utf-8" if text else None
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(command, capture_output=True, encoding=encoding, check=False, env=environment, cwd=cwd)


def install(session: nox.Session) -> None:
    """Install the project's and its checks' packages, unless the active environment is used."""
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-r", "requirements-cpu.txt", "-r", "requirements-dev.txt")


if __name__ == "__main__":
    nox.main()
