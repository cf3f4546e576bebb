"""Components are files: `model=my_net` is `src/models/lightning/my_net.py`, and no list names it.

Each file has a function `build`; its keyword arguments are the component's keys, with their types and defaults. Only
the source is read to learn them (`ast`), so `--help` and a misspelt key are answered before any framework is imported.
"""

import ast
import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from src.kit.errors import UserError

SRC = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("lightning", "paddle")
# group -> folders of src, the framework's own first; subfolders only sort the files by task
PLACES = {
    "model": ("models/{framework}", "models"),
    "data": ("datasets",),
    "task": ("tasks",),
    "loss": ("tasks/losses/{framework}", "tasks/losses"),
    "metric": ("tasks/metrics",),
    "optimizer": ("trainers/optimizers/{framework}", "trainers/optimizers"),
    "scheduler": ("trainers/schedules",),
    "tracker": ("trainers/trackers",),
    "callback": ("trainers/callbacks/{framework}",),
}
KINDS = {"data": "data set"}  # what a component is called, if not as its group
IN_FOLDER, TABLES = (".yaml", ".yml", ".json"), (".csv", ".tsv", ".parquet")  # what other tools take as data
NESTED = (*FRAMEWORKS, "losses", "metrics")  # folders with a place of their own


@dataclass(frozen=True)
class Range:
    """Bounds of a number in a signature: `width: Annotated[int, Range(min=1)] = 32`. min and max are inclusive."""

    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Argument:
    """One keyword argument of `build`: its annotation as source text, its default (`...` if required) and its help."""

    name: str
    annotation: str
    default: Any
    help: str = ""
    bounds: dict[str, float] = field(default_factory=dict)


def find_component(group: str, name: str, framework: str = "") -> Path | None:
    """The file of a component, or None: `find_component("model", "resnet", "lightning")`."""
    return component_files(group, framework).get(name)


def component_files(group: str, framework: str = "") -> dict[str, Path]:
    """Name -> file of every component of a group that this project has for a framework."""
    found: dict[str, Path] = {}
    for template in reversed(PLACES[group]):
        files: list[list[str]] = []
        for folder, inner, names in os.walk(SRC / template.format(framework=framework)):
            inner[:] = set(inner) - {*NESTED, "__pycache__"}
            files += [[*folder.split(os.sep), name] for name in names if name.endswith(".py")]
        found |= {parts[-1].removesuffix(".py"): Path(os.sep.join(parts)) for parts in sorted(files)}
    return found


def load_component(group: str, name: str, framework: str = "", option: str = "") -> ModuleType:
    """Import a component's file; `option` is the YAML that names it, if not `name`.

    Raises:
        UserError: there is no such file, and the message lists those that exist; or it has no `build`.
    """
    path = existing_component(group, name, framework, option)
    module: ModuleType = import_module(".".join(path.relative_to(SRC.parent).with_suffix("").parts))
    if group != "task" and not callable(getattr(module, "build", None)):
        file = path.relative_to(SRC.parent).as_posix()
        raise UserError(f"{file} has no function `build`: write one, as in the files beside it.")
    return module


def returned(built: Any, option: str) -> Any:
    """What the `build` of an option such as "model=mine" has returned.

    Raises:
        UserError: nothing.
    """
    if built is None:
        raise UserError(f"`build` of {option} has returned nothing: end it with a return of what it has built.")
    return built


def existing_component(group: str, name: str, framework: str = "", option: str = "") -> Path:
    """The file of a component; `option` is the YAML that names it, if not `name`.

    Raises:
        UserError: there is no such file; the message lists those that exist.
    """
    path = find_component(group, name, framework)
    if path is None:
        elsewhere = ((each, find_component(group, name, each)) for each in FRAMEWORKS if each != framework)
        other, file = next(((each, file) for each, file in elsewhere if file), ("", None))
        if framework and file:
            shown = name if file.with_suffix(".txt").exists() else option or name  # a library's file has many names
            raise UserError(
                f"{group}={shown} exists for {other} only: set framework={other} or choose another {group}."
            )
        raise UserError(unknown(KINDS.get(group, group), name, buildable(group, framework)))
    return path


def check_listed(path: Path, name: str) -> None:
    """Refuse a name that the list beside a component's file, such as timm.txt, does not have; tags are not listed.

    Raises:
        UserError: names the nearest.
    """
    listed = path.with_suffix(".txt")
    if listed.exists() and name.partition(".")[0] not in (names := listed.read_text("utf-8").split()):
        nearest = difflib.get_close_matches(name.partition(".")[0], names, n=3)
        hint = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
        shown = "/".join(listed.parts[listed.parts.index("src") :])
        raise UserError(f"{path.stem} has no network {name!r}.{hint} {shown} lists all.")


def buildable(group: str, framework: str = "") -> list[str]:
    """The names of a group's files that have a `build` function or, for tasks, a class `Task`."""
    return sorted(name for name, path in component_files(group, framework).items() if definition(path) is not None)


@cache
def definition(path: Path) -> ast.FunctionDef | ast.ClassDef | None:
    """The `build` function (or the class `Task`) in a component's source.

    Raises:
        UserError: the source is not Python.
    """
    try:
        nodes = ast.parse(path.read_text("utf-8")).body
    except SyntaxError as error:
        raise UserError(f"{path.relative_to(SRC.parent).as_posix()}, line {error.lineno}: {error.msg}.") from error
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in ("build", "Task"):
            return node
    return None


@cache
def signature(path: Path) -> dict[str, Argument]:
    """Name -> keyword-only argument of the `build` in a component's source, which is read and not imported."""
    function = definition(path)
    if not isinstance(function, ast.FunctionDef):
        return {}
    if function.args.defaults:
        shown, name = path.relative_to(SRC.parent).as_posix(), function.args.args[-1].arg
        raise UserError(
            f"{shown}, line {function.lineno}: keys are the arguments after `*`: write `def build(*, {name}=...)`."
        )
    helps = argument_helps(ast.get_docstring(function) or "")
    arguments = {}
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        annotation, bounds = split_annotated(argument.annotation)
        value = ... if default is None else literal(default, path)
        arguments[argument.arg] = Argument(argument.arg, annotation, value, helps.get(argument.arg, ""), bounds)
    return arguments


def split_annotated(node: ast.expr | None) -> tuple[str, dict[str, float]]:
    """`Annotated[int, Range(min=1)]` -> ("int", {"min": 1})."""
    if node is None:
        return "", {}
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Annotated"):
        assert isinstance(node.slice, ast.Tuple), ast.unparse(node)
        kind, bounds = node.slice.elts[0], {}
        for extra in node.slice.elts[1:]:
            if isinstance(extra, ast.Call) and ast.unparse(extra.func) == "Range":
                bounds = {keyword.arg: ast.literal_eval(keyword.value) for keyword in extra.keywords if keyword.arg}
        return ast.unparse(kind), bounds
    return ast.unparse(node), {}


def literal(node: ast.expr, path: Path) -> Any:
    """A default's value.

    Raises:
        UserError: the default is computed, so that it cannot be known without running the file.
    """
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UserError(
            f"{path}, line {node.lineno}: write the default {ast.unparse(node)!r} as a plain number, text or list."
        ) from error


def argument_helps(docstring: str) -> dict[str, str]:
    """Argument -> its sentence in the docstring's `Args:` section."""
    helps: dict[str, str] = {}
    inside, name = False, ""
    for line in docstring.splitlines():
        text = line.strip()
        if not line.startswith(" ") and text:
            inside, name = text == "Args:", ""
        elif inside and line.startswith("    ") and not line.startswith("     ") and ":" in text:
            name, _, sentence = text.partition(":")
            helps[name] = sentence.strip()
        elif inside and name and text:
            helps[name] += f" {text}"
    return helps


def unknown_option(group: str, name: str, known: Iterable[str], configs: Path) -> str:
    """One sentence: there is no such option, or only a Python file that no YAML file in `configs` names."""
    if group == "data" and (Path(name).suffix.lower() in (*IN_FOLDER, *TABLES) or {"/", "\\"} & set(name)):
        return path_as_data(name, known)
    files = [find_component(group, name, framework) for framework in FRAMEWORKS] if group in PLACES else []
    named = any(f"file: {name}\n" in f"{path.read_text('utf-8')}\n" for path in configs.rglob("*.yaml"))
    if named or not (file := next(filter(None, files), None)):
        return path_as_data(name, known) if group == "data" and Path(name).is_dir() else unknown(group, name, known)
    return (
        f"{file.relative_to(SRC.parent).as_posix()} has no YAML file that makes it an option: create "
        f"src/configs/{group}/{name}.yaml with the line `name: {name}`."
    )


def path_as_data(path: str, known: Iterable[str]) -> str:
    """One sentence: `data=` takes a name, and where the path goes: a table itself, else the folder that holds it."""
    place, names = Path(path), sorted(known)
    table = place.suffix.lower() in TABLES
    if place.suffix.lower() in IN_FOLDER:
        place = place.parent.parent if place.parent.name == "annotations" else place.parent
    own = [name for name in names if name.endswith("_file" if table else "_folder")] or names
    name, choice = (own[0], "") if len(own) == 1 else ("NAME", f", where NAME is {', '.join(own[:-1])} or {own[-1]}")
    return f"data= takes a name, and its path is data.root: write data={name} data.root={place}{choice}."


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence: the name is unknown, the nearest one, and all there are."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names) or 'none'}."
