"""The download script, as a user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fault_server import serving
from paths import TEMPLATE
from src.kit.catalog import build_split, dataset_specs
from src.kit.config.compose import load_config

NAMES = [f"{part}-{kind}-ubyte" for part in ("t10k", "train") for kind in ("images-idx3", "labels-idx1")]


def script(*arguments: str, folder: Path = TEMPLATE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TEMPLATE / "scripts" / "download.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_real_mnist_is_downloaded_and_read(tmp_path):
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not all(Path(folder, f"{name}.gz").is_file() for name in NAMES):
        pytest.skip("TEST_DATA_DIR names no folder with MNIST's four .gz files")
    command = [sys.executable, "scripts/download.py", "data=mnist", f"data.root={(tmp_path / 'mnist').as_posix()}"]
    with serving({f"{name}.gz": Path(folder, f"{name}.gz").read_bytes() for name in NAMES}) as server:
        environment = os.environ | {"DATASET_MIRROR": server.url, "no_proxy": "127.0.0.1"}
        runs = []
        for mode in (0o555, 0o755):  # a second user may not write into the folder, and need not
            runs.append(subprocess.run(command, cwd=TEMPLATE, env=environment, capture_output=True, text=True))
            (tmp_path / "mnist").chmod(mode)
        first, second = runs
    assert (first.returncode, first.stderr, second.returncode, second.stderr) == (0, "", 0, "")
    assert f"mnist is in {tmp_path / 'mnist'}" in first.stdout
    assert second.stdout.count("is already there") == 4
    assert sum(asked.sent for asked in server.asked) == sum(map(len, server.files.values()))
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(NAMES)
    data = load_config(command[2:]).data
    sizes = [len(build_split(data, split, seed=0)) for split in ("train", "val", "test")]
    assert sizes == [54_001, 5_999, 10_000]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=digits"], "digits needs no download."),
        (
            ["data=image_folder", "data.root=nowhere"],
            "image_folder needs no download: your files belong in nowhere (data.root).",
        ),
        (
            ["task=tabular", "data=table_file", "data.root=README.md"],
            "table_file needs no download: your files are in README.md (data.root).",
        ),
    ],
)
def test_the_script_says_when_nothing_is_to_be_fetched(tmp_path, arguments, said):
    (tmp_path / "README.md").touch()
    result = script(*arguments, folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"{said}\n")


def test_the_stage_prints_a_command_for_the_task_that_was_asked_for():
    said = script("--stage", "debug", "task=tabular", "seed=7").stdout
    assert "debug: breast_cancer, since" in said
    command = said.splitlines()[-1].removeprefix("  python scripts/train.py ").split()
    assert command[0] == "data=breast_cancer"
    assert command[-2:] == ["task=tabular", "seed=7"]
    assert load_config(command).model.name == "tabular_mlp"


def test_the_table_of_data_sets_is_readable_at_80_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = script("--stage", "info", folder=tmp_path).stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(" data="))
    table = [line.split() for line in lines[first + 2 : -2]]
    assert max(map(len, lines[first:])) <= 80
    assert "…" not in "".join(lines)
    assert {row[0] for row in table} >= set(dataset_specs()) | {"instance_segmentation", "tabular_regression"}
    there = {row[0]: row[-1] for row in table if len(row) > 2}
    assert (there["digits"], there["breast_cancer"]) == ("yes", "yes")
    # nothing is in an empty folder, and digit scenes have to be composed first
    assert {there[name] for name in ("mnist", "digit_scenes", "image_folder", "table_file")} == {"no"}
    (tmp_path / "data" / "digit_scenes").mkdir(parents=True)
    lines = script("--stage", "info", folder=tmp_path).stdout.splitlines()
    assert next(line.split()[-1] for line in lines if line.startswith(" digit_scenes")) == "yes"


def test_a_project_without_boxes_and_tables_has_its_own_data_sets_only(tmp_path):
    left_out = shutil.ignore_patterns(
        "__pycache__", "*scene*", "*tabular*", "detection*", "segmentation*", "instance_segmentation*"
    )
    for name in ("src", "scripts"):
        shutil.copytree(TEMPLATE / name, tmp_path / name, ignore=left_out)
    lines = {}
    for arguments in (["--stage", "info"], ["--stage", "debug"], ["data=digits"]):
        done = subprocess.run(
            [sys.executable, "scripts/download.py", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        lines[arguments[-1]] = done.stdout.splitlines()
    first = next(number for number, line in enumerate(lines["info"]) if line.startswith(" data="))
    listed = [line.split()[0] for line in lines["info"][first + 2 : -2]]
    assert listed == ["digits", "mnist", "cifar10", "imagenet", "image_folder"]


@pytest.mark.parametrize("name", ["mnist", "coco128", "coco2017"])
@pytest.mark.parametrize("before", [False, True])
def test_a_download_that_fails_leaves_no_empty_folder(tmp_path, monkeypatch, name, before):
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path / "mirror"))
    root = tmp_path / "data" / name
    if before:
        root.mkdir(parents=True)
        (root / "notes.txt").touch()
    result = script(f"data={name}", f"data.root={root.as_posix()}")
    assert (result.returncode, result.stderr.startswith("error: ")) == (2, True)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == (["data", f"data/{name}", f"data/{name}/notes.txt", "mirror"] if before else ["mirror"])
