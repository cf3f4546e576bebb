"""benchmarks/gpu_proof.py, small and on this machine's device: what it runs, keeps and leaves out."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from paths import TEMPLATE

SCRIPT = TEMPLATE.parent / "benchmarks" / "gpu_proof.py"

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks/ is part of the template repository")


def prove(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--tiny", *options]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)


def test_proofs_are_kept_as_they_end_and_not_repeated(tmp_path):
    done = prove(tmp_path, "--only", "memory,fsdp")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "proofs.jsonl").read_text("utf-8").splitlines()]
    assert [row["proof"] for row in rows] == ["memory", "fsdp"]
    assert rows[0]["figures"] == {"rows": 1}
    assert rows[1]["figures"]["difference"] < 1e-6
    with (tmp_path / "proofs.jsonl").open("a") as file:
        file.write('{"proof": "rep')  # cut off here
    again = prove(tmp_path, "--only", "memory,fsdp")
    assert again.returncode == 0
    assert again.stdout.splitlines()[0].startswith("| proof"), "nothing ran"
    assert "| memory |" in again.stdout


def test_a_proof_that_is_cut_says_so_and_runs_the_next_time(tmp_path):
    done = prove(tmp_path, "--only", "start", "--minutes", "0.005")
    assert done.returncode == 1
    (row,) = [json.loads(line) for line in (tmp_path / "proofs.jsonl").read_text("utf-8").splitlines()]
    assert row["error"] == "cut: the time was up"
    assert "There is no speed." in prove(tmp_path, "--only", "speed").stdout


def test_int8_is_measured_beside_what_pytorch_computes(tmp_path):
    done = prove(tmp_path, "--only", "int8")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "proofs.jsonl").read_text("utf-8").splitlines()]
    found = row["figures"]
    assert not [name for name in found if name.endswith("failed")]
    assert 0 < found["ONNX Runtime CPU float difference"] < 1e-4
    assert 1e-4 < found["ONNX Runtime CPU INT8 difference"] < 0.2
    assert abs(found["ONNX Runtime CPU INT8 accuracy"] - found["eager float32 accuracy"]) < 0.02
    assert min(rate for name, rate in found.items() if name.endswith("/s")) > 0
    assert "tensorrt" in found["not installed"] or find_spec("tensorrt")
