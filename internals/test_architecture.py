"""The rules of the two houses: what users read and change, and the kit behind it."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path, PureWindowsPath

import pytest

from paths import TEMPLATE
from src.kit.storage import sort_paths

SRC = TEMPLATE / "src"
HOUSE = ("configs", "datasets", "models", "tasks", "trainers", "utils")
MODULES = sorted(path for path in SRC.rglob("*.py") if "__pycache__" not in path.parts)
KIT = [path for path in MODULES if path.is_relative_to(SRC / "kit")]
COMPONENTS = [path for path in MODULES if path.relative_to(SRC).parts[0] in HOUSE]


def package(module: str) -> str:
    """`src.kit.config.keys` -> `src.kit.config`; a module of the house -> `src`."""
    parts = module.split(".")
    return ".".join(parts[:3]) if parts[:2] == ["src", "kit"] and len(parts) > 2 else "src"


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: not blank, comments or docstrings."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node):
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return lines


def imports(path: Path) -> list[tuple[str, list[str], int]]:
    """(module, names, line) of every `from src... import ...` in a file, inside functions too."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [
        (node.module, [alias.name for alias in node.names], node.lineno)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("src")
    ]


def public_names(module: str) -> list[str]:
    path = TEMPLATE.joinpath(*module.split("."))
    source = path / "__init__.py" if (path / "__init__.py").exists() else path.with_suffix(".py")
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(TEMPLATE).with_suffix("").parts).removesuffix(".__init__")


def test_the_kit_imports_nothing_of_the_house():
    wrong = [
        f"{path.relative_to(TEMPLATE)}:{line}: {module}"
        for path in KIT
        for module, _, line in imports(path)
        if module == "src" or module.split(".")[1] in HOUSE
    ]
    assert not wrong


def test_packages_are_imported_without_circles():
    edges: dict[str, set[str]] = {}
    for path in KIT:
        own = package(module_of(path))
        for module, names, _ in imports(path):
            others = {f"src.kit.{name}" for name in names} if module == "src.kit" else {package(module)}
            edges.setdefault(own, set()).update(others - {own})
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, [*path, name])
            done.add(name)

    assert sum(map(len, edges.values())) > 40
    for name in sorted(edges):
        visit(name, [])


def test_other_packages_use_public_names_only():
    wrong = []
    for path in [*MODULES, *sorted((TEMPLATE / "scripts").glob("*.py"))]:
        own = package(module_of(path))
        for module, names, line in imports(path):
            if not module.startswith("src.kit") or package(module) == own:
                continue
            where = f"{path.relative_to(TEMPLATE)}:{line}: from {module} import {', '.join(names)}"
            if module == "src.kit":
                wrong += [where for name in names if not (SRC / "kit" / name).is_dir()]
            elif module != package(module) or set(names) - set(public_names(module)):
                wrong.append(where)
    assert not wrong


def test_every_package_says_what_it_is_for():
    packages = sorted({package(module_of(path)) for path in KIT})
    assert len(packages) > 10
    for name in packages:
        path = TEMPLATE.joinpath(*name.split("."))
        source = (path / "__init__.py" if (path / "__init__.py").exists() else path.with_suffix(".py")).read_text(
            "utf-8"
        )
        assert ast.get_docstring(ast.parse(source)), name
        assert public_names(name), f"{name} has no __all__"


@pytest.mark.parametrize(("paths", "most"), [(KIT, 250), (COMPONENTS, 99)], ids=["kit", "house"])
def test_files_stay_short(paths, most):
    assert len(paths) > 40
    long = {path.relative_to(TEMPLATE).as_posix(): len(code_lines(path.read_text("utf-8"))) for path in paths}
    assert not {name: lines for name, lines in long.items() if lines > most}


def test_functions_stay_short():
    long = {}
    for path in MODULES:
        source = path.read_text("utf-8")
        lines = code_lines(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                count = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
                if count > 40:
                    long[f"{path.relative_to(TEMPLATE)}:{node.name}"] = count
    assert not long


def test_docstrings_begin_with_a_sentence_of_one_line():
    """Or with what ends in a colon, or with a whole docstring of one line."""
    wrapped = []
    for path in [*MODULES, *(TEMPLATE / "scripts").glob("*.py"), *(TEMPLATE / "tests").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first, *rest = (ast.get_docstring(node) or "").split("\n")
                if rest and rest[0] and not re.search(r"[.?](\s|$)|:$", first):
                    wrapped.append(f"{path.name}: {first}")
    assert wrapped == []


def sorts_paths(node: ast.AST) -> bool:
    """Whether this is `sorted(folder.iterdir())`, or of what a comprehension takes from there as it is."""
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "sorted") or node.keywords:
        return False
    given = node.args[0]
    if isinstance(given, ast.GeneratorExp | ast.ListComp | ast.SetComp):
        kept, given = given.elt, given.generators[0].iter
        if not isinstance(kept, ast.Name):
            return False
    method = given.func if isinstance(given, ast.Call) else None
    return (
        isinstance(method, ast.Attribute)
        and method.attr in ("iterdir", "glob", "rglob")
        and getattr(method.value, "id", "") != "glob"  # the module, which gives texts
    )


def test_files_have_the_same_order_on_windows():
    """Windows' paths compare without case, so classes would get other numbers: `sort_paths` does not."""
    assert sorts_paths(ast.parse("sorted(path for path in folder.glob('*') if path.is_dir())").body[0].value)
    paths = [*MODULES, *(TEMPLATE / "scripts").glob("*.py")]
    found = [path.name for path in paths if any(map(sorts_paths, ast.walk(ast.parse(path.read_text("utf-8")))))]
    assert found == []
    folders = [PureWindowsPath("b/C"), PureWindowsPath("B/a"), PureWindowsPath("b-c")]
    assert [path.as_posix() for path in sort_paths(folders)] == ["B/a", "b/C", "b-c"]


def test_a_batch_passes_few_files():
    """From the command to the optimizer's step; docs/design.md of the template draws them."""
    path = [
        "scripts/train.py",
        "src/kit/config/compose.py",
        "src/kit/training/runs.py",
        "src/kit/training/experiment.py",
        "src/kit/catalog/__init__.py",
        "src/datasets/digits.py",
        "src/kit/loading/loader.py",
        "src/models/lightning/small_cnn.py",
        "src/trainers/lightning.py",
        "src/kit/lightning/trainer.py",
        "src/kit/training/loop.py",
        "src/trainers/optimizers/lightning/adamw.py",
    ]
    assert len(path) <= 12
    assert all((TEMPLATE / name).exists() for name in path)


HEAVY = {"numpy", "torch", "paddle", "pytorch_lightning", "matplotlib", "sklearn", "scipy", "pandas", "PIL", "cv2"}
PREPARE = """
import numpy as np
from src.kit.config import load_config
from src.kit.memory import fit_to_machine
from src.kit.training import Experiment, train_run
experiment = Experiment(load_config(["data=digits", "framework=paddle"]))
targets = experiment.split("val").targets
experiment.evaluate([(np.eye(10)[targets], targets)], "val")
"""


NEVER = {"torchmetrics.functional", "torchvision", "sklearn", "pandas", "sympy", "torch._dynamo.utils"}


@pytest.mark.parametrize(("framework", "other"), [("lightning", "paddle.base"), ("paddle", "torch.nn")])
def test_a_run_never_imports_what_it_does_without(framework, other, tmp_path):
    words = [f"framework={framework}", "trainer=debug", "trainer.limit_train_batches=1", f"output_dir={tmp_path}"]
    command = [sys.executable, "-X", "importtime", "scripts/train.py", *words]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")]
    assert not {*NEVER, other} & set(loaded)
    if framework == "paddle":  # Lightning imports matplotlib itself
        assert loaded.index("paddle.base") < loaded.index("matplotlib")


@pytest.mark.parametrize(
    ("command", "may"),
    [
        (["-c", "import src, src.kit.run"], set()),
        (["-c", PREPARE], {"numpy", "PIL", "cv2"}),  # up to where a framework is needed, and the scores of its answers
    ],
)
def test_what_takes_long_to_import_is_imported_when_a_run_needs_it(command, may):
    words = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(words, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "omegaconf" in loaded or "src" in loaded
    assert loaded & HEAVY <= may


SCRIPTS = sorted(path.name for path in (TEMPLATE / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_no_heavy_packages(script):
    words = [sys.executable, "-X", "importtime", f"scripts/{script}", "--help"]
    done = subprocess.run(words, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.stdout and not loaded & HEAVY
