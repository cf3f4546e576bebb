"""Which checkpoints are kept, and that a crash never costs the last good one."""

import json
import math
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.kit.config import load_config, write_config
from src.kit.errors import UserError
from src.kit.run import read_rows
from src.kit.storage import checksum, replace_file
from src.kit.training import Experiment
from src.kit.training.checkpoints import Checkpoints, find_checkpoint
from src.kit.weights import save_weights


def save(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Files above `size` bytes fail, as on a full disk."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 4)])
def test_the_best_and_the_last_stay(tmp_path, mode, best):
    kept = Checkpoints(tmp_path / "checkpoints", keep_best=1, keep_last=2, mode=mode)
    for epoch, score in enumerate([0.5, 0.9, 0.7, 0.1, 0.6, 0.8], start=1):
        kept.add(epoch, epoch * 10, score, save)
    assert names(tmp_path) == sorted({f"epoch={epoch:03d}-step={epoch * 10:06d}" for epoch in (best, 5, 6)})
    assert find_checkpoint(tmp_path, "best").name == f"epoch={best:03d}-step={best * 10:06d}"
    assert find_checkpoint(tmp_path, "last").name == "epoch=006-step=000060"
    assert find_checkpoint(tmp_path, "epoch=005-step=000050").is_dir()


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoints", keep_best=1, keep_last=1, mode="min")
    kept.add(1, 10, math.nan, save)
    assert find_checkpoint(tmp_path, "best").name == "epoch=001-step=000010", "there is no other"
    for epoch, score in enumerate([0.9, 0.5, math.nan], start=2):
        kept.add(epoch, epoch * 10, score, save)
    assert find_checkpoint(tmp_path, "best").name == "epoch=003-step=000030"
    assert names(tmp_path) == ["epoch=003-step=000030", "epoch=004-step=000040"]


def test_a_save_that_fails_leaves_the_older_checkpoint_and_nothing_half_written(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoints", 1, 1, "max")
    kept.add(1, 10, 0.5, save)

    def full_disk(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"wei")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        kept.add(2, 20, 0.9, full_disk)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["epoch=001-step=000010"]
    assert find_checkpoint(tmp_path, "last").name == "epoch=001-step=000010"


def test_the_index_survives_a_restart(tmp_path):
    Checkpoints(tmp_path / "checkpoints", 1, 1, "max").add(1, 10, 0.9, save)
    Checkpoints(tmp_path / "checkpoints", 1, 1, "max").add(2, 20, 0.5, save)
    index = json.loads((tmp_path / "checkpoints" / "index.json").read_text("utf-8"))
    assert (index["best"], index["last"]) == ("epoch=001-step=000010", "epoch=002-step=000020")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="train first"):
        find_checkpoint(tmp_path, "best")
    Checkpoints(tmp_path / "checkpoints", 1, 1, "max").add(1, 10, 0.9, save)
    with pytest.raises(UserError, match="choose best, last or one of epoch=001"):
        find_checkpoint(tmp_path, "epoch=009-step=000090")


def test_a_run_that_was_killed_before_its_first_checkpoint_is_to_be_repeated(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "running"}', "utf-8")
    with pytest.raises(UserError, match="has no checkpoint yet") as raised:
        find_checkpoint(tmp_path, "last")
    assert f"--from {tmp_path}`" in str(raised.value)


def test_each_file_has_its_checksum_in_the_checkpoint_and_in_the_index(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n", "utf-8")
    Checkpoints(tmp_path / "checkpoints", 1, 1, "max").add(1, 10, 0.9, save)
    folder = find_checkpoint(tmp_path, "last")
    files = {"model.safetensors": {"bytes": 7, "sha256": checksum(folder / "model.safetensors")}}
    described = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    index = json.loads((tmp_path / "checkpoints" / "index.json").read_text("utf-8"))
    assert described["files"] == index["checkpoints"][0]["files"] == files
    assert described["config"] == "seed: 1\n"


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done: list[str] = []

    def sync(path: Path) -> None:
        done.append(path.name)

    def rename(source: Path, target: Path) -> None:
        done.append(f"-> {target.name}")
        os.rename(source, target)

    monkeypatch.setattr("src.kit.training.checkpoints.sync", sync)
    monkeypatch.setattr("os.replace", rename)
    Checkpoints(tmp_path / "checkpoints", 1, 1, "max").add(1, 10, 0.9, save)
    name = "epoch=001-step=000010"
    partial = f".{name}.{os.getpid()}.partial"
    assert done[1:6] == ["model.safetensors", "checkpoint.json", partial, f"-> {name}", "checkpoints"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_weights_get_the_mode_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_weights(tmp_path / "model.safetensors", {"a": np.zeros(3, np.float32)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode


def test_a_full_disk_is_an_oserror_that_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, {"a": np.zeros(3, np.float32)}, {})
    before = path.read_bytes()
    with limited_file_size(10_000), pytest.raises(OSError, match="File too large") as raised:
        save_weights(path, {"a": np.zeros(99_999, np.float32)}, {})
    assert raised.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_being_replaced_stays_when_the_writer_fails(tmp_path):
    (tmp_path / "a.txt").write_text("old", "utf-8")
    with pytest.raises(ZeroDivisionError), replace_file(tmp_path / "a.txt") as partial:
        partial.write_text("new", "utf-8")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text("utf-8") == "old"


def test_rows_that_are_none_are_left_out_with_a_warning_but_for_the_one_that_a_crash_cut_short(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "a": 0.5}\n{"epoch": 2, "a', "utf-8")
    assert read_rows(path) == [{"epoch": 1, "a": 0.5}]
    assert not caplog.records
    path.write_text('{"epoch": 1, "a": "x"}\n{"epoch": 2, "a": null}\n[]\n', "utf-8")
    assert read_rows(path) == [{"epoch": 2, "a": None}]
    assert "damaged in 2 lines, the first of which is line 1" in caplog.text


def test_a_config_of_a_run_that_is_cut_short_or_lacks_a_key_is_one_sentence_or_as_good_as_whole(tmp_path):
    path = tmp_path / "config.yaml"
    write_config(load_config(["data=digits", "tracker=none"]), path)
    text = path.read_text("utf-8")
    lines, whole = text.splitlines(), yaml.safe_load(text)
    texts = ["\n".join(lines[:end]) for end in range(0, len(lines), 12)]
    for key in whole:
        texts += [yaml.safe_dump({name: value for name, value in whole.items() if name != key})]
        texts += [yaml.safe_dump({**whole, key: value}) for value in (5, [1], None)]
    refused = 0
    for each in texts:
        path.write_text(each, "utf-8")
        try:
            cfg = load_config([], base=path)
        except UserError:
            refused += 1
            continue
        assert Experiment(cfg).input_shape == (8, 8, 1)
        assert cfg.optimizer.lr > 0 and cfg.trainer.checkpoint.keep_last > 0 and not cfg.trainer.folds
    assert refused > len(texts) / 2
