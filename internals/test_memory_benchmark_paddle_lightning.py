"""benchmarks/gpu_memory.py of the template repository, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paths import TEMPLATE

SCRIPT = TEMPLATE.parent / "benchmarks" / "gpu_memory.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks/ is part of the template repository")


def run(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_a_dry_run_estimates_the_rows(framework: str) -> None:
    rows = [json.loads(line) for line in run("--dry-run", "--framework", framework, "--limit", "3").splitlines()]
    planned = [json.loads(line) for line in run("--plan", "--framework", framework, "--limit", "3").splitlines()]
    assert [{name: row[name] for name in planned[0]} for row in rows] == planned
    assert all(row["estimate"]["needed"] > row["estimate"]["reserved"] > 0 for row in rows)


STEP = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
import gpu_memory
from src.kit.training import Experiment, load_benchmark
for row in {row["model"]: row for row in gpu_memory.all_rows() if row["framework"] == sys.argv[2]}.values():
    cfg = gpu_memory.configure({**row, "precision": "32-true"})
    shape = replace(gpu_memory.find_data_shape(Experiment(cfg)), image_size=64)
    trainer = load_benchmark(row["framework"]).Trainer(cfg, gpu_memory.stand_in(shape))
    trainer.step(gpu_memory.make_batch(cfg, shape, 2))
    print(row["model"])
"""


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_every_network_takes_a_step_on_made_up_data(framework: str) -> None:
    command = [sys.executable, "-c", STEP, str(SCRIPT.parent), framework]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    planned = {json.loads(line)["model"] for line in run("--plan", "--framework", framework).splitlines()}
    assert set(done.stdout.split()) == planned, done.stderr


def test_the_plan_is_large_enough_and_holds_families_out() -> None:
    rows = [json.loads(line) for line in run("--plan").splitlines()]
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    for framework in ("lightning", "paddle"):
        own = [row for row in rows if row["framework"] == framework]
        assert len(own) >= 60
        assert {row["model"] for row in own} >= {"resnet50", "yolov10n", "deeplab_resnet18", "mask_rcnn_resnet18"}
        assert sum(row["model"] in ("efficientnet", "resnet18_attention", "mask_rcnn_resnet18") for row in own) >= 30


def test_the_summary_counts_errors(tmp_path: Path) -> None:
    row = {"framework": "paddle", "model": "small_cnn", "precision": "32-true", "optimizer": "sgd", "batch": 8}
    estimate = {"allocated": 90.0, "reserved": 100.0, "total": 600.0, "needed": 620.0}
    measured = {"allocated": 100.0, "reserved": 100.0, "process": 610.0}
    line = json.dumps({**row, "estimate": estimate, "measured": measured})
    (tmp_path / "found.jsonl").write_text(f"{line}\n{line[:40]}", "utf-8")
    table = run("--summary", "--out", str(tmp_path / "found.jsonl"))
    assert "| paddle | all | allocated | 1 | 10.0% | 10.0% | 100.0% | 0.0% |" in table
    assert "| paddle | all | reserved | 1 | 0.0% | 0.0% | 0.0% | 0.0% |" in table


def test_a_process_has_its_own_memory_where_the_driver_lists_it() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from gpu_memory import used_by; "
    listing = "12, 900\n 345, 1021\n6, [N/A]\n"
    code += f"print([used_by(pid, {listing!r}) for pid in (345, 12, 6, 34)], used_by(1, ''))"
    command = [sys.executable, "-c", code, str(SCRIPT.parent)]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert done.stdout == "[1021.0, 900.0, None, None] None\n"
