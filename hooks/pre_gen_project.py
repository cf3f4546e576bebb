"""Refuse bad answers again (cookiecutter's --replay does not ask), and folders that are not empty."""

import json
import os
import sys
from pathlib import Path

CONTEXT = json.loads(r"""{{ cookiecutter | tojson }}""")
sys.path.insert(0, json.loads(r"""[{{ template_root | tojson }}]""")[0])
sys.dont_write_bytecode = True
PROJECT = Path.cwd()


def first_problem() -> str:
    """One sentence, or ""."""
    from cookiecutter.exceptions import FailedHookException

    from cookiecutter_door import need_copier, problem, source

    if any(PROJECT.iterdir()):
        return f"{PROJECT} is not empty: choose another project_slug, or run copier copy there."
    try:
        need_copier()
        source(CONTEXT)
    except FailedHookException as error:
        return str(error)
    return problem(CONTEXT)


try:
    sys.exit(first_problem() or 0)
except KeyboardInterrupt:  # cookiecutter does not clean up after that
    os.chdir(PROJECT.parent)
    if not any(PROJECT.iterdir()):
        PROJECT.rmdir()
    sys.exit(130)
