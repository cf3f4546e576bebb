"""What must hold of the validate scripts in every framework: the pipeline really runs, within its stage's limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paths import TEMPLATE

STEPS = ["environment", "data", "loader", "training", "evaluation", "limits"]


def run(framework: str, name: str, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, the JSON and what went to stderr of a script with --json."""
    command = [sys.executable, f"scripts/{name}.py", f"framework={framework}", "--json", *arguments]
    result = subprocess.run(command, cwd=TEMPLATE, capture_output=True, encoding="utf-8")
    report = json.loads(result.stdout)
    assert [each["step"] for each in report["steps"]] == STEPS
    assert report["framework"] == framework
    assert "report: " not in result.stderr  # in a folder that is gone
    return result.returncode, report, result.stderr


def check(framework: str, name: str, *arguments: str) -> dict:
    """Run a script and check that all of it passed; returns the JSON."""
    code, report, stderr = run(framework, name, *arguments)
    assert (code, report["passed"]) == (0, True), stderr[-2000:]
    assert {each["status"] for each in report["steps"]} == {"ok"}
    return report


class ValidatePipelineTests:
    """Subclasses name the framework."""

    framework: str

    def test_the_debug_stage_takes_less_than_a_gigabyte(self):
        report = check(self.framework, "quick_validate")
        assert (report["dataset"], report["tier"], report["memory_limit_mib"]) == ("digits", "debug", 1000)
        assert 100 < report["steps"][-1]["peak_mib"] < 1000
        assert "20 batches of (64, 1, 8, 8)" in report["steps"][2]["detail"]

    def test_the_production_stage_trains_on_all_of_it(self):
        report = check(self.framework, "full_validate", "data=digits", "data.batch_size=128")
        assert report["tier"].startswith("production")
        assert "(128, 1, 8, 8)" in report["steps"][2]["detail"]

    def test_real_mnist_is_fetched_and_validated_within_a_gigabyte(self, tmp_path, monkeypatch):
        folder = os.environ.get("TEST_DATA_DIR")
        if not folder or not Path(folder, "train-images-idx3-ubyte.gz").is_file():
            pytest.skip("TEST_DATA_DIR names no folder with MNIST's four .gz files")
        monkeypatch.setenv("DATASET_MIRROR", folder)
        report = check(self.framework, "quick_validate", "--dataset", "mnist", f"data.root={tmp_path.as_posix()}")
        assert "54,001 train" in report["steps"][1]["detail"]
        assert report["steps"][-1]["peak_mib"] < 1000

    def test_data_that_is_not_there_ends_with_1_and_a_complete_table(self, tmp_path):
        root = f"data.root={tmp_path.as_posix()}"
        code, report, _ = run(
            self.framework, "quick_validate", "--stage", "production", "--dataset", "image_folder", root
        )
        assert (code, report["passed"]) == (1, False)
        assert [each["status"] for each in report["steps"]] == ["ok", "fail", "skipped", "skipped", "skipped", "ok"]
        assert "needs at least 2" in report["steps"][1]["detail"]
        assert report["tier"].startswith("production")
