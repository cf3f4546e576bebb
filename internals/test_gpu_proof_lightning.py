"""benchmarks/gpu_proof.py, small and on this machine's device: what it runs, keeps and leaves out."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from src.kit.config import load_config
from src.kit.training import Experiment

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


def test_cifar10_fast_and_the_settings_are_measured(tmp_path):
    done = prove(tmp_path, "--only", "cifar10_fast,repeat_tasks,defaults")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "proofs.jsonl").read_text("utf-8").splitlines()
    fast, repeated, settings = map(json.loads, lines)
    assert fast["figures"]["accuracy"] > 0.8, "of the digits"
    assert 0 < fast["figures"]["warm_epochs_s"] < fast["figures"]["wall_s"]
    assert repeated["figures"] == {"small_cnn_equal": True}
    assert {name.removeprefix("resnet18 ") for name in settings["figures"]} >= {"without bf16", "without fused"}
    assert min(settings["figures"].values()) > 0


CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from gpu_proof import Proofs
proofs = Proofs(None, Path(sys.argv[2]), 0.0, False)
proofs.photos = Path(sys.argv[2]) / "photos"
print(*proofs.records())
"""


def test_photos_become_cifar10_s_own_files(tmp_path):
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for part, count in (("train", 10), ("test", 1)):
        for label, name in enumerate(classes):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (32, 32), (20 * label, number, 7))
                picture.save(tmp_path / "photos" / part / name / f"{number}.png")
    command = [sys.executable, "-c", CONVERT, str(SCRIPT.parent), str(tmp_path)]
    keys = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout.split()
    experiment = Experiment(load_config([*keys, "data.val_fraction=0.1"]))
    for split, count in (("train", 90), ("val", 10), ("test", 10)):
        data = experiment.split(split)
        assert len(data) == count
        pixels = data.images.get(np.arange(count))
        assert (pixels[..., 0] == 20 * data.targets[:, None, None]).all()
        assert (pixels[..., 2] == 7).all()
