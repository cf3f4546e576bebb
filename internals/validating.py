"""Runs the validate scripts for both frameworks' tests."""

import json
import subprocess
import sys

from paths import TEMPLATE

STEPS = ["environment", "data", "loader", "training", "evaluation", "limits"]


def run(framework: str, name: str, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, the JSON and what went to stderr of a script with --json."""
    command = [sys.executable, f"scripts/{name}.py", f"framework={framework}", "--json", *arguments]
    result = subprocess.run(command, cwd=TEMPLATE, capture_output=True, encoding="utf-8")
    report = json.loads(result.stdout)
    assert [each["step"] for each in report["steps"]] == STEPS
    assert report["framework"] == framework
    return result.returncode, report, result.stderr


def check(framework: str, name: str, *arguments: str) -> dict:
    """Run a script and check that all of it passed; returns the JSON."""
    code, report, stderr = run(framework, name, *arguments)
    assert (code, report["passed"]) == (0, True), stderr[-2000:]
    assert {each["status"] for each in report["steps"]} == {"ok"}
    return report
