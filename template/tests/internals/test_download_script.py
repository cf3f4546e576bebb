"""The download script, as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.datasets import mnist
from src.utils.config import load_config
from tests.internals.fault_server import serving

PROJECT = Path(__file__).parents[2]
NAMES = [f"{part}-{kind}-ubyte" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")]


def test_the_real_mnist_is_downloaded_and_read(tmp_path):
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not all(Path(folder, f"{name}.gz").is_file() for name in NAMES):
        pytest.skip("TEST_DATA_DIR names no folder with MNIST's four .gz files")
    command = [sys.executable, "scripts/download.py", "data=mnist", f"data.root={(tmp_path / 'mnist').as_posix()}"]
    with serving({f"{name}.gz": Path(folder, f"{name}.gz").read_bytes() for name in NAMES}) as server:
        environment = os.environ | {"DATASET_MIRROR": server.url, "no_proxy": "127.0.0.1"}
        first, second = (
            subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True) for _ in range(2)
        )
    assert (first.returncode, first.stderr, second.returncode) == (0, "", 0)
    assert f"mnist is in {tmp_path / 'mnist'}" in first.stdout
    assert second.stdout.count("is already there") == 4
    assert sum(asked.sent for asked in server.asked) == sum(map(len, server.files.values()))
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(NAMES)
    data = load_config(command[2:]).data
    sizes = [len(mnist.load(data, split, seed=0)) for split in ("train", "val", "test")]
    assert sizes == [54_001, 5_999, 10_000]


@pytest.mark.parametrize("name", ["digits", "image_folder"])
def test_the_script_says_when_nothing_is_to_be_fetched(name):
    command = [sys.executable, "scripts/download.py", f"data={name}"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"{name} needs no download.\n")
