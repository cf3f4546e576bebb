"""Technical selection: the template and scripts/select_framework.py say the same, whatever the scores."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from jinja2 import FileSystemLoader
from jinja2.environment import TemplateModule
from jinja2.sandbox import SandboxedEnvironment

from tests.cookiecutter_json import ASKED, HELP
from tests.render import EXAMPLES, ROOT, render

DOCUMENT = "docs/select_framework.md"
ENVIRONMENT = SandboxedEnvironment(loader=FileSystemLoader(ROOT), keep_trailing_newline=True)
PAIRS = list(itertools.product(range(1, 6), repeat=2))
# All 390 625 combinations would take minutes; here each pair of scores is met at each criterion.
SAMPLE = [[PAIRS[(i + step * k) % 25] for k in range(4)] for i in range(25) for step in range(25)]
KEYS = ("team_familiarity", "deployment", "performance", "community")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/select_framework.py, imported."""
    spec = importlib.util.spec_from_file_location("select_framework", ROOT / "template/scripts/select_framework.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["select_framework"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def template() -> TemplateModule:
    return ENVIRONMENT.get_template("questions/selection.jinja").module


def texts(scores: list[tuple[int, int]]) -> list[str]:
    return [f"{first} {second}" for first, second in scores]


def test_one_table(script: ModuleType, template: TemplateModule) -> None:
    ours = [
        (key, label, weight, "{} {}".format(*start), reason) for key, label, weight, start, reason in script.CRITERIA
    ]
    assert ours == list(template.criteria)
    assert [weight for _, _, weight, _, _ in ours] == [30, 25, 25, 20]
    assert script.THRESHOLD == template.threshold == 350
    assert [(key, start) for key, _, _, start, _ in ours] == [(key, ASKED[key]["default"]) for key in KEYS]


def test_same_numbers_and_words(script: ModuleType, template: TemplateModule) -> None:
    page = ENVIRONMENT.from_string((ROOT / f"template/{DOCUMENT}.jinja").read_text("utf-8"))
    for scores in SAMPLE:
        first, second = script.totals(scores)
        assert (template.total(texts(scores), 0), template.total(texts(scores), 1)) == (str(first), str(second))
        assert template.verdict(texts(scores)) == script.verdict(scores)
        assert template.better(texts(scores)) == ("paddle" if second > first else "lightning")
        assert page.render(dict(zip(KEYS, texts(scores), strict=True))) == script.document(scores)


@pytest.mark.parametrize(
    ("scores", "sentence", "framework", "shown"),
    [
        (
            "4 3, 4 4, 4 4, 5 3",
            "PyTorch Lightning is recommended: 4.20 against 3.50.",
            "lightning",
            "4.20, Paddle 3.50",
        ),
        ("1 5, 3 5, 3 4, 3 4", "PaddlePaddle is recommended: 4.55 against 2.40.", "paddle", "2.40, Paddle 4.55"),
        (
            "3 3, 3 4, 3 4, 3 3",
            "PaddlePaddle is recommended: 3.50 against 3.00.",
            "paddle",
            "Lightning 3.00, Paddle 3.50",
        ),
        (
            "4 2, 3 3, 3 3, 3 3",
            "Neither is recommended: PyTorch Lightning is better with 3.30, but below 3.50.",
            "lightning",
            "none recommended: Lightning 3.30, Paddle 2.70",
        ),
        (
            "5 5, 5 5, 5 5, 5 5",
            "Both reach 5.00: either is recommended, PyTorch Lightning is named first.",
            "lightning",
            "both 5.00 of 5",
        ),
        (
            "1 1, 1 1, 1 1, 1 1",
            "Neither is recommended: both reach 1.00, below 3.50.",
            "lightning",
            "none recommended: both 1.00 of 5",
        ),
    ],
)
def test_scores_decide_the_default(scores: str, sentence: str, framework: str, shown: str, tmp_path: Path) -> None:
    answers = {"help_me_choose": True, **dict(zip(KEYS, scores.split(", "), strict=True))}
    render(tmp_path, answers)
    recorded = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))
    assert recorded["framework"] == framework
    assert {key: recorded[key] for key in answers} == answers
    assert f"\n{sentence}\n" in (tmp_path / DOCUMENT).read_text("utf-8")
    question = ENVIRONMENT.from_string(ASKED["framework"]["help"]).render(answers)
    assert shown in question
    assert question.endswith(").")
    assert len(question) <= 76, "an 80-column terminal cuts the rest off"


def test_without_help_nothing_is_added(tmp_path: Path) -> None:
    render(tmp_path, {"framework": "paddle"})
    assert not (tmp_path / DOCUMENT).exists()
    recorded = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))
    assert not set(KEYS) & set(recorded)
    assert ENVIRONMENT.from_string(ASKED["framework"]["help"]).render(help_me_choose=False) == HELP["framework"]


def test_an_example_has_it(projects: dict[str, Path]) -> None:
    chosen = [name for name, answers in EXAMPLES.items() if answers.get("help_me_choose")]
    assert chosen
    assert {name for name, project in projects.items() if (project / DOCUMENT).exists()} == set(chosen)


def test_updates_keep_the_scores(github: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"

    def call(folder: Path, *command: str) -> None:
        subprocess.run(command, cwd=folder, env=github, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def commit() -> None:
        call(project, "git", "add", "--all")
        call(project, "git", "commit", "--quiet", "--message", "mine")

    scores = ["--data", "help_me_choose=true", "--data", "team_familiarity=1 5"]
    call(tmp_path, sys.executable, "-m", "copier", "copy", "--defaults", *scores, "gh:org/ml-template", "project")
    call(project, "git", "init", "--quiet")
    commit()
    before = (project / DOCUMENT).read_bytes()
    hub = tmp_path / "hub/org/ml-template.git"
    (hub / "template/docs/new.md").write_text("new\n", "utf-8")
    call(hub, "git", "add", "--all")
    call(hub, "git", "commit", "--quiet", "--message", "release")
    call(hub, "git", "tag", "v9.9.0")
    call(project, sys.executable, "-m", "copier", "update", "--defaults")
    assert (project / "docs/new.md").exists()
    assert (project / DOCUMENT).read_bytes() == before
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert (recorded["team_familiarity"], recorded["framework"]) == ("1 5", "paddle")
    commit()
    call(project, sys.executable, "-m", "copier", "update", "--defaults", "--data", "help_me_choose=false")
    assert not (project / DOCUMENT).exists()


def run(project: Path, *arguments: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "scripts/select_framework.py", *arguments]
    return subprocess.run(command, cwd=project, input=answers, capture_output=True, encoding="utf-8", check=False)


def test_script_writes_the_page(tmp_path: Path) -> None:
    render(tmp_path, {"help_me_choose": True})
    before = (tmp_path / DOCUMENT).read_bytes()
    done = run(tmp_path, "--team-familiarity", "1", "5", "--write")
    assert done.returncode == 0, done.stderr
    assert "PaddlePaddle is recommended: 4.10 against 3.30." in done.stdout
    render(other := tmp_path / "other", {"help_me_choose": True, "team_familiarity": "1 5"})
    assert before != (tmp_path / DOCUMENT).read_bytes() == (other / DOCUMENT).read_bytes()
    assert [path.stem for path in (tmp_path / "docs").iterdir() if "select" in path.name] == ["select_framework"]


def test_script_and_page_come_with_the_question(projects: dict[str, Path]) -> None:
    asked = {name for name, answers in EXAMPLES.items() if answers.get("help_me_choose")}
    for part in (DOCUMENT, "scripts/select_framework.py"):
        assert {name for name, project in projects.items() if (project / part).exists()} == asked


def test_script_asks(tmp_path: Path) -> None:
    render(tmp_path, {"help_me_choose": True})
    before = (tmp_path / DOCUMENT).read_bytes()
    done = run(tmp_path, answers="6 1\n1 5\n\n3.7 4\n3 3\n\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("type two whole numbers from 1 to 5") == 2
    assert "| Performance | 25 % | 3 | 3 |" in done.stdout
    assert (tmp_path / DOCUMENT).read_bytes() == before


@pytest.mark.parametrize("score", ["0", "6", "3.7", "good", "-1", "", "４"])
def test_script_refuses_bad_scores(score: str, projects: dict[str, Path]) -> None:
    done = run(projects["paddle"], "--deployment", score, "4")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


def test_script_has_nobody_to_ask(projects: dict[str, Path]) -> None:
    done = run(projects["paddle"])
    assert done.returncode == 2
    assert done.stderr == "error: There is no terminal to ask on: give the scores, as in --team-familiarity 4 3.\n"
