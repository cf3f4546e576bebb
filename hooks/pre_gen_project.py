"""Refuses bad answers once more (cookiecutter's --replay does not ask), and folders that hold files."""

import json
import os
import sys
from pathlib import Path

CONTEXT = json.loads(r"""{{ cookiecutter | tojson }}""")
sys.path.insert(0, json.loads(r"""[{{ template_root | tojson }}]""")[0])
sys.dont_write_bytecode = True
PROJECT = Path.cwd()


def first_problem() -> str:
    """One sentence, or nothing."""
    from cookiecutter.exceptions import FailedHookException

    from cookiecutter_door import need_copier, problem, source

    if any(PROJECT.iterdir()):
        return f"{PROJECT} holds files already: choose another project_slug, or use copier copy there."
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
