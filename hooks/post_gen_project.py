"""Render the project with copier, detect the hardware and print the next steps. Runs in the project's folder."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CONTEXT = json.loads(r"""{{ cookiecutter | tojson }}""")
sys.path.insert(0, json.loads(r"""[{{ template_root | tojson }}]""")[0])
STARTED_IN = Path(json.loads(r"""[{{ started_in | tojson }}]""")[0])
sys.dont_write_bytecode = True
PROJECT = Path.cwd()


def make() -> None:
    """Let copier render into this folder, quietly: `say` prints its message, nobody needs its list of files."""
    from cookiecutter_door import copier_command, for_copier, source

    (PROJECT / ".placeholder").unlink()
    data = [part for name, answer in for_copier(CONTEXT).items() for part in ("--data", f"{name}={answer}")]
    ref = ["--vcs-ref", CONTEXT["_checkout"]] if CONTEXT["_checkout"] else []
    command = [*copier_command(), "copy", "--defaults", "--quiet", *ref, *data, "--", source(CONTEXT), str(PROJECT)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def detect() -> None:
    """Write the git-ignored .hardware.json and print recommendations; the project works without."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "scripts/doctor.py", "--json"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False, cwd=PROJECT
        )
        recommendations = json.loads(done.stdout)["recommendations"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        print("Could not detect the hardware; python scripts/doctor.py says why.")
        return
    print("Recommended for this machine (reasons: python scripts/doctor.py):")
    for item in recommendations:
        print(f"    {item['name']:<18} {item['value']}")
    print(flush=True)


def say() -> None:
    """Copier's closing message."""
    from cookiecutter_door import SCORES, macros

    answers = (PROJECT / ".copier-answers.yml").read_text(encoding="utf-8")
    requirements = "requirements-cpu.txt" if "\ngpu: none\n" in answers else "requirements-gpu.txt"
    scores = [CONTEXT[name] for name in SCORES]
    verdict = str(macros("questions/selection.jinja").verdict(scores)) if CONTEXT["help_me_choose"] else ""
    folder = str(PROJECT.relative_to(STARTED_IN) if PROJECT.is_relative_to(STARTED_IN) else PROJECT)
    windows = os.name == "nt"
    large = "\nframework: paddle\n" not in answers and CONTEXT["package_index"] in ("mirror", "as-configured")
    steps = macros("questions/next_steps.jinja").next_steps
    print(steps(CONTEXT["project_name"], folder, windows, requirements, verdict, large))


def clear() -> None:
    """Empty the folder: cookiecutter then removes it, and fails if it is gone."""
    for path in PROJECT.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")  # a Windows code page lacks letters that a name may hold
try:
    make()
    detect()
except subprocess.CalledProcessError as error:
    clear()
    sys.exit(f"copier failed with exit code {error.returncode}, so there is no project; see its message above.")
except KeyboardInterrupt:  # cookiecutter does not clean up after that
    os.chdir(PROJECT.parent)
    shutil.rmtree(PROJECT, ignore_errors=True)
    sys.exit(130)
except BaseException:
    clear()
    raise
say()
