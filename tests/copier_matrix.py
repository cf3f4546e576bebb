"""Render with every minor version of copier, and with every Python: the output must be equal, byte for byte.

python -m tests.copier_matrix            # all
python -m tests.copier_matrix 9.17.2     # some versions

Versions before `_min_copier_version` must refuse with a sentence, and would render without that line: the minimum is a
decision about security, not a limit of the template.
"""

import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.render import ROOT, copy_template

# The newest patch of each minor version, and both sides of the minimum; before 9.8, --data could not hold a list.
VERSIONS = ["9.8.0", "9.9.1", "9.10.3", "9.11.3", "9.12.0", "9.13.1", "9.14.3", "9.15.2", "9.16.0", "9.17.1"]
VERSIONS += ["9.17.2", "9.18.2", "9.19.0", "9.19.1"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]  # each that uv finds here, with the newest copier; the others on the oldest
ANSWERS = ["framework=both", "gpu=12.6", "task=all", "tracker=mlflow", "extras=[streaming, search, serving, cluster]"]
ANSWERS += ["project_name=Größe 2"]
DATA = [part for answer in ANSWERS for part in ("--data", answer)]
SETTING = re.compile(r'^_min_copier_version: "([\d.]+)".*\n', re.M)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def main(names: list[str]) -> int:
    """Print one row for each pair of copier and Python; 1 where one differs."""
    text = (ROOT / "copier.yml").read_text("utf-8")
    found = SETTING.search(text)
    assert found
    here = [python for python in PYTHONS if is_found(python)]
    print(f"Python {', '.join(here)} found here, of {', '.join(PYTHONS)}", file=sys.stderr)
    pairs = [(version, here[0]) for version in names or VERSIONS]
    pairs += [] if names else [(VERSIONS[-1], python) for python in here[1:]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        strict, open_to_all = folder / "strict", folder / "open"
        for copy in (strict, open_to_all):
            copy.mkdir()
            copy_template(copy)
        (open_to_all / "copier.yml").write_text(SETTING.sub("", text), "utf-8", newline="\n")
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(row, folder, *pair, found[1], strict, open_to_all) for pair in pairs]
            rows = [job.result() for job in jobs]
    prints = {row[-1] for row in rows}
    print(f"| copier | Python | minimum {found[1]} | files, without the minimum |\n|---|---|---|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    right = len(prints) == 1 and all(not row[2].startswith("WRONG") for row in rows) and "failed" not in prints.pop()
    print("equal everywhere" if right else "NOT EQUAL")
    return 0 if right else 1


def is_found(python: str) -> bool:
    """Whether uv finds this Python without downloading it."""
    command = ["uv", "python", "find", "--no-python-downloads", python]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def row(folder: Path, version: str, python: str, minimum: str, strict: Path, open_to_all: Path) -> list[str]:
    """What one copier makes of the template with its minimum, and without."""
    home = folder / f"{version}-{python}"
    subprocess.run(["uv", "venv", "--quiet", "--python", python, str(home / "env")], check=True)
    program = home / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = [f"copier=={version}", "setuptools<81"]  # 9.7 imports pkg_resources through plumbum
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(program), *packages], check=True)
    code, said = copy(program, strict, home / "strict" / "project")
    if numbers(version) >= numbers(minimum):
        shown = "renders" if code == 0 else f"WRONG: {said[-200:]}"
    else:
        refused = code != 0 and f"Copier version >= {minimum}" in said and "Traceback" not in said
        shown = "refuses with a sentence" if refused else f"WRONG: {said[-200:]}"
    code, said = copy(program, open_to_all, home / "open" / "project")
    print(f"{version} on Python {python}: {shown}", file=sys.stderr, flush=True)
    return [version, python, shown, summary(home / "open" / "project") if code == 0 else f"failed: {said[-200:]}"]


def copy(program: Path, template: Path, project: Path) -> tuple[int, str]:
    """Run `copier copy`; its exit code and what it says."""
    project.parent.mkdir()
    command = [str(program), "-m", "copier", "copy", "--defaults", *DATA, str(template), project.name]
    done = subprocess.run(command, cwd=project.parent, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def summary(project: Path) -> str:
    """How many files there are, and a digest of their names and content; where the template came from aside."""
    digest, count = hashlib.sha256(), 0
    for path in sorted(path for path in project.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == ".copier-answers.yml":
            answers = yaml.safe_load(content)
            content = repr(sorted((key, value) for key, value in answers.items() if key != "_src_path")).encode()
        digest.update(path.relative_to(project).as_posix().encode() + b"\0" + content + b"\0")
        count += 1
    return f"{count}, {digest.hexdigest()[:12]}"


if __name__ == "__main__":
    if not shutil.which("uv"):
        sys.exit("uv is not on PATH: pip install uv")
    sys.exit(main(sys.argv[1:]))
