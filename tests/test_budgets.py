"""Budgets: a project has few, short files, and nothing of what was not chosen: no file, and no word."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.cookiecutter_json import SETTINGS
from tests.render import EXAMPLES, ROOT, files_of

HOUSE = ("configs", "models", "datasets", "tasks", "trainers")
CLASSIFICATION = sorted(name for name, answers in EXAMPLES.items() if "task" not in answers)
# Where the other framework may be named, and why.
NEUTRAL = {
    "pyproject.toml": "one list of packages that mypy skips serves every variant, as template/ itself needs all",
    "scripts/select_framework.py": "compares both",
    "docs/select_framework.md": "compares both",
    "src/kit/": "serves both: what is installed, which packages a run records, tables of memory",
    "tests/test_config.py": "tests how an unknown framework is refused",
    "tests/training.py": "names both test files that use it",
}


def test_files_of_the_default_project(projects: dict[str, Path]) -> None:
    assert len(files_of(projects["lightning"])) <= 255


def test_files_of_everything(projects: dict[str, Path]) -> None:
    extras = ["streaming", "search", "serving", "cluster"]
    assert EXAMPLES["both"].items() >= {"framework": "both", "task": "all", "extras": extras}.items()
    assert len(files_of(projects["both"])) <= 442


def test_files_of_each_variant(variant: Path) -> None:
    answers = EXAMPLES[variant.name]
    most = 255 + 77 * (answers.get("task", "classification") != "classification") + 101 * (answers.get("task") == "all")
    most += 8 * ("cluster" in answers.get("extras", [])) + ("streaming" in answers.get("extras", []))
    assert len(files_of(variant)) <= most


def test_files_of_the_house(projects: dict[str, Path]) -> None:
    src = projects["lightning"] / "src"
    assert sum(len(files_of(src / folder)) for folder in HOUSE) <= 79


def test_rows_that_leave_something_out() -> None:
    assert sum("{{" in row for row in SETTINGS["_exclude"]) <= 18


def places(project: Path, pattern: str) -> list[str]:
    """Where a word stands, in a file's name or its text: NAME or NAME:LINE: TEXT."""
    found = []
    for name in files_of(project):
        if re.search(pattern, name, re.I):
            found.append(name)
        lines = (project / name).read_text("utf-8").splitlines()
        found += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if re.search(pattern, line, re.I)]
    return found


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_no_other_task_in_a_classification_project(name: str, projects: dict[str, Path]) -> None:
    assert places(projects[name], "scenes|coco|yolo") == []


@pytest.mark.parametrize("name", sorted(name for name in EXAMPLES if EXAMPLES[name].get("framework") != "both"))
def test_no_other_framework(name: str, projects: dict[str, Path]) -> None:
    answers = EXAMPLES[name]
    other = "paddle" if answers.get("framework", "lightning") == "lightning" else "lightning"
    own = re.escape(answers.get("description", "-"))  # the user's words
    found = [place for place in places(projects[name], other) if not re.search(own, place)]
    assert [place for place in found if not place.startswith(tuple(NEUTRAL))] == []


def test_no_service_where_it_was_not_chosen(projects: dict[str, Path]) -> None:
    without = [
        name
        for name, answers in EXAMPLES.items()
        if "serving" not in answers.get("extras", SETTINGS["extras"]["default"])
    ]
    assert without
    for name in without:
        assert places(projects[name], r"fastapi|uvicorn|prometheus|multipart|scripts/serve|src\.api") == []


def content_lines(path: Path) -> int:
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in path.read_text("utf-8").splitlines())


def test_no_cluster_where_it_was_not_chosen(projects: dict[str, Path]) -> None:
    without = [name for name, answers in EXAMPLES.items() if "cluster" not in answers.get("extras", [])]
    assert without
    for name in without:
        ray = "" if "search" in EXAMPLES[name].get("extras", SETTINGS["extras"]["default"]) else r"|\bray\b"  # --on ray
        assert places(projects[name], rf"kubectl|deploy/cluster|kit\.cluster|cluster\.md|scripts/plan{ray}") == []


def test_config_budgets(variant: Path) -> None:
    configs = variant / "src/configs"
    assert content_lines(configs / "config.yaml") < 20
    for group, budget in (("model", 10), ("data", 10), ("trainer", 15), ("loss", 10), ("task", 10)):
        files = list((configs / group).rglob("*.yaml"))
        assert files
        for path in files:
            # a group's base has a line for each key that all of its files share; tables describe many data sets
            if path.stem not in ("dataset_spec", "debug_datasets", "production_datasets"):
                wide = {
                    "default": 30,
                    "imagenet": 15,
                    "coco128": 15,
                    "coco2017": 15,
                    "table_file": 12,
                    "wine": 11,
                    "breast_cancer": 11,
                }
                most = wide.get(path.stem, budget)
                assert content_lines(path) < most, path


def code_lines(source: str) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    lines: set[int] = set()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_code_lines_counts_code_only() -> None:
    assert (
        code_lines(
            '"""Doc\nof two lines."""\n\n# a comment\nx = (1,\n     2)\n\n\ndef f():\n    """Doc."""\n    return x\n'
        )
        == 4
    )


def functions(source: str) -> list[tuple[str, int]]:
    """Each function's name and lines of code, without those of functions inside it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.unparse(node)  # counts statements alike, however they are wrapped
            inner = [child for child in ast.walk(node) if child is not node and isinstance(child, ast.FunctionDef)]
            found.append((node.name, code_lines(text) - sum(code_lines(ast.unparse(child)) for child in inner)))
    return found


def test_component_budgets() -> None:
    """The house and the scripts stay under 100 lines of code a file, the kit at 250 a file and 40 a function."""
    files = [path for folder in ("src", "scripts") for path in (ROOT / "template" / folder).rglob("*.py")]
    assert len(files) > 40
    long = {}
    for path in files:
        source, kit = path.read_text("utf-8"), "kit" in path.relative_to(ROOT / "template").parts
        if (lines := code_lines(source)) > (250 if kit else 99):
            long[str(path.relative_to(ROOT))] = lines
        long |= {f"{path.relative_to(ROOT)}: {name}": lines for name, lines in functions(source) if lines > 40}
    assert not long
