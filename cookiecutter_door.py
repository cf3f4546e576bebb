"""`cookiecutter gh:org/ml-template`: cookiecutter asks, questions/validators.jinja checks, copier renders the project.

cookiecutter loads `Door` through `_extensions` in cookiecutter.json, and finds only modules at the repository's root
under a name that nothing else has; the hooks import the rest.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cookiecutter.exceptions import FailedHookException
from jinja2 import Environment, FileSystemLoader, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context

ROOT = Path(__file__).resolve().parent
STARTED_IN = Path.cwd()  # the user's folder; cookiecutter changes directory later
COPIER = "copier>=9.17.2"  # for uvx and pipx
AUTO = "auto"  # the answer that stands for copier's default
SCORES = ("team_familiarity", "deployment", "performance", "community")
SEVERAL = ("extras",)  # questions with several answers, which cookiecutter does not have


def macros(file: str) -> Any:
    """Load the macros of one of the template's files, with copier's filters that Jinja lacks."""
    environment = Environment(loader=FileSystemLoader(ROOT))
    environment.filters["regex_search"] = lambda text, pattern: (re.search(pattern, text) or [None])[0]
    environment.filters["regex_replace"] = lambda text, pattern, new: re.sub(pattern, new, text)
    return environment.get_template(file).module


def for_copier(answers: Mapping[str, Any]) -> dict[str, str]:
    """The answers to pass to copier, without "auto" and those that it would not have asked for."""
    unasked: tuple[str, ...] = () if answers["help_me_choose"] else SCORES
    unasked += () if answers["package_index"] == "mirror" else ("mirror_url",)
    given = {
        name: str(answer).lower() if isinstance(answer, bool) else str(answer)
        for name, answer in answers.items()
        if not name.startswith("_") and name not in unasked and answer != AUTO
    }
    # "streaming, search" is typed; copier reads "[streaming, search]"
    return given | {name: f"[{given[name].strip('[] ')}]" for name in SEVERAL if name in given}


def problem(answers: Mapping[str, Any]) -> str:
    """One sentence about the first bad answer, or ""."""
    conf = {"data": for_copier(answers), "defaults": True}
    return str(macros("questions/validators.jinja").first_problem(conf)).strip()


def copier_command() -> list[str]:
    """The command that runs copier; empty if there is none."""
    if importlib.util.find_spec("copier"):
        return [sys.executable, "-m", "copier"]
    if uvx := shutil.which("uvx"):
        return [uvx, "--from", COPIER, "copier"]
    if pipx := shutil.which("pipx"):
        return [pipx, "run", "--spec", COPIER, "copier"]
    return []


def source(context: Mapping[str, Any]) -> str:
    """The template's address for `copier update`: as typed if copier understands it, else the clone's.

    cookiecutter returns the path itself for a template in a folder, and its clone's path for all others.
    """
    typed = str(context["_template"])
    if typed.startswith(("gh:", "gl:")):
        return typed
    if context["_repo_dir"] == typed:
        return str(ROOT)
    command = ["git", "-C", str(ROOT), "config", "--get", "remote.origin.url"]
    url = subprocess.run(command, capture_output=True, encoding="utf-8", check=False).stdout.strip()
    if not url:
        raise FailedHookException(
            f"{typed} is not a git repository, so the project could never be updated: use its address."
        )
    if re.match(r"https?://[^/]*@", url):
        raise FailedHookException("Leave user and password out of the template's address: they would be recorded.")
    known = url.endswith(".git") or url.startswith(("git@", "git://", "https://github.com/", "https://gitlab.com/"))
    return url if known or Path(url).is_dir() else f"git+{url}"


class Door(Extension):
    """Functions for the expressions in cookiecutter.json, and two folders that the hooks need."""

    def __init__(self, environment: Environment) -> None:
        """Add the names to cookiecutter's Jinja."""
        super().__init__(environment)
        environment.globals.update(need_copier=need_copier, slug=slug, check=check)
        environment.globals.update(template_root=str(ROOT), started_in=str(STARTED_IN))


def need_copier() -> str:
    """Stop before the first question if copier cannot run. cookiecutter prints this exception as one line."""
    if not copier_command():
        raise FailedHookException(
            "copier renders the project and was not found: pip install copier (or uv, or pipx), then try again."
        )
    return ""


def slug(name: str) -> str:
    """The default project_slug."""
    return str(macros("questions/validators.jinja").slug(name)).strip()


@pass_context
def check(context: Context) -> str:
    """Stop after the last question, before anything is written, if an answer is bad."""
    if sentence := problem(context["cookiecutter"]):
        raise FailedHookException(sentence)
    return ""
