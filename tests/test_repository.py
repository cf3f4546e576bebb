"""What people need to adopt this repository: licence, workflows that run what exists, releases, a bot for versions."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.freshness import pins
from tests.render import EXAMPLES, ROOT
from tools.release_notes import release_notes

GITHUB = ROOT / ".github"
VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    return found


def test_it_has_a_licence() -> None:
    ours, template = ((ROOT / name).read_text("utf-8") for name in ("LICENSE", "questions/licenses/MIT.txt"))
    assert ours.split("\n\n", 2)[2] == template.split("\n\n", 2)[2] and "{{" not in ours
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == VERSIONS["template"]


def test_workflows_run_sessions_and_examples_that_exist() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.M))
    steps = [step for job in jobs(GITHUB / "workflows/ci.yml").values() for step in job["steps"]]
    steps += jobs(GITHUB / "workflows/release.yml")["pages"]["steps"]
    named = [words for step in steps if (words := re.search(r"^nox -s ([\w ]+)", step.get("run", "")))]
    ran = {name for words in named for name in words[1].split()}
    assert {"lint", "tests", "project", "smoke", "containers", "docs"} <= ran <= sessions
    assert jobs(GITHUB / "workflows/ci.yml")["smoke"]["strategy"]["matrix"]["example"] == sorted(EXAMPLES)
    assert "python -m tools.release_notes" in (GITHUB / "workflows/release.yml").read_text("utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        writes = {what for what, how in job.get("permissions", {}).items() if how == "write"}
        assert writes == {"release": {"contents"}, "pages": {"pages", "id-token"}}.get(name, set())
        for step in job.get("steps", []):
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v0")), (
                "GitHub's own actions only"
            )
            assert not re.search(r"\$\{\{ *github\.(event|head_ref)", step.get("run", "")), "a title could be a command"


def test_actionlint() -> None:
    if not shutil.which("actionlint"):
        pytest.skip("actionlint is not on PATH: https://github.com/rhysd/actionlint")
    files = [*WORKFLOWS, ROOT / "template/.github/workflows/ci.yml"]
    done = subprocess.run(["actionlint", *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_bot_sees_every_pin() -> None:
    [manager] = json.loads((GITHUB / "renovate.json").read_text("utf-8"))["customManagers"]
    [pattern] = [text.replace("(?<", "(?P<") for text in manager["matchStrings"]]
    lines = [line.split("#")[0] for line in (ROOT / "versions.yml").read_text("utf-8").splitlines()]
    seen = {(match["depName"], match["currentValue"]) for line in lines for match in re.finditer(pattern, line)}
    pinned = {tuple(re.split(r"==|;", pin)[:2]) for pin in pins(VERSIONS) if "==" in pin}
    assert seen == pinned


def test_issue_forms_are_complete() -> None:
    for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        if path.name != "config.yml":
            assert form["name"] and form["description"]
            assert all(
                field["type"] in ("textarea", "input") and field["attributes"]["label"] for field in form["body"]
            )


def test_a_tag_is_all_that_is_left() -> None:
    texts = [(ROOT / name).read_text("utf-8") for name in ("CHANGELOG.md", "versions.yml")]
    notes = release_notes(f"v{VERSIONS['template']}", *texts)
    assert notes.startswith("**Template**") and "\n## " not in notes
    with pytest.raises(ValueError, match=r"v9\.9\.9 is not v"):
        release_notes("v9.9.9", *texts)
    with pytest.raises(ValueError, match=r"has no heading '## 9\.9\.9'"):
        release_notes("v9.9.9", texts[0], "template: 9.9.9\n")
    older = "# Changelog\n\n## 1.1.0\n\nnew\n\n## 1.0.0\n\nold\n"
    assert release_notes("v1.1.0", older, "template: 1.1.0\n") == "new\n"
