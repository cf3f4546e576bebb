"""scripts/estimate_memory.py as a user types it."""

import json
import subprocess
import sys

from paths import TEMPLATE
from src.kit.hardware import detect


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "scripts/estimate_memory.py", *arguments]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_of_the_docs() -> None:
    keys = ("model=resnet18", "data.batch_size=64", "trainer.precision=bf16-mixed", "optimizer=adamw")
    found = json.loads(run(*keys, "--json").stdout)
    assert found["mib"]["batch_size"] == 64
    assert list(found["largest_batch"]) == ["8", "12", "16", "24", "40", "80", "141"]
    assert found["smallest_gpu_gb"] == 8
    table = run(*keys).stdout
    for word in [
        "parameters",
        "gradients",
        "optimizer",
        "activations",
        "workspace",
        "context",
        "fragmentation",
        "total",
    ]:
        assert word in table
    assert "Recommended: a GPU of 8 GB or more." in table


def test_a_data_set_that_is_not_there() -> None:
    found = json.loads(run("model=resnet18", "data=imagenet", "data.root=nowhere", "--json").stdout)
    assert found["mib"]["activations"] > 1000
    told = any("trainer.precision=bf16-mixed" in note for note in found["notes"])
    assert told != bool(detect().gpus), "who has no GPU asks for another machine, whose default it is"


def test_mistakes_are_answered_in_a_sentence() -> None:
    done = run("model=resnet19")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert run("--help").stdout.startswith("Estimate the GPU memory")
