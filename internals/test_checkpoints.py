"""Which checkpoints are kept, and that a crash never costs the last good one."""

import json
from pathlib import Path

import pytest

from src.kit.errors import UserError
from src.kit.training.checkpoints import Checkpoints, find_checkpoint


def save(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


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
