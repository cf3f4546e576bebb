"""What must hold of checkpoints within an epoch in every framework; test_resume_*.py run it in theirs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from paths import TEMPLATE
from scene_training import write_digit_scenes
from src.kit.catalog import build_dataset
from src.kit.compression import find_rules, prune_channels, prune_weights
from src.kit.config.compose import load_config
from src.kit.errors import Stopped
from src.kit.run import Run, read_rows
from src.kit.shards.read import write_shards
from src.kit.training import TrainingLoop, find_checkpoint, load_backend, train_run
from src.kit.weights import load_weights, save_weights
from tests.support import build_network, fit

BATCHES = 7
KEYS = [
    "data.augment=basic",
    "data.batch_size=64",
    f"trainer.limit_train_batches={BATCHES}",
    "trainer.max_epochs=3",
    "trainer.checkpoint.every_n_steps=2",
    "log_every_n_steps=2",
    "tracker=none",
]
DIGITS = ["data=digits", "model=small_cnn", "model.dropout=0.2"]


class Killed(Exception):
    """The machine went off."""


class ResumeTests:
    """Subclasses name the framework."""

    framework: str
    script = "scripts/train.py"

    def configure(self, folder: Path, *overrides: str) -> DictConfig:
        return load_config([f"framework={self.framework}", f"output_dir={folder.as_posix()}", *KEYS, *overrides])

    def fit(self, cfg: DictConfig, folder: Path | None = None) -> Path:
        """Train, or go on from the folder's last checkpoint."""
        with Run(cfg, folder) as run:
            fit(cfg, run, find_checkpoint(folder, "last") if folder else None)
        return run.path

    def fit_until(self, cfg: DictConfig, dies: int, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Train, and die after `dies` batches."""
        original, done = TrainingLoop.step, []

        def step(loop: TrainingLoop, loss: object) -> None:
            if len(done) == dies:
                raise Killed
            done.append(loop.batch)
            original(loop, loss)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(TrainingLoop, "step", step)
            self.fit(cfg)
        (run,) = Path(cfg.output_dir).iterdir()
        return run

    def check(self, tmp_path: Path, dies: int, begins: tuple[int, int], monkeypatch, *overrides: str) -> None:
        """A run that died goes on at batch `begins` (epoch and number from 0), and ends as one that did not die."""
        whole = self.fit(self.configure(tmp_path / "whole", *overrides))
        cfg = self.configure(tmp_path / "cut", *overrides)
        cut = self.fit_until(cfg, dies, monkeypatch)
        seen, original = [], TrainingLoop.step

        def step(loop: TrainingLoop, loss: object) -> None:
            seen.append((loop.epoch, loop.batch))
            original(loop, loss)

        monkeypatch.setattr(TrainingLoop, "step", step)
        self.fit(cfg, cut)
        total = [(epoch, batch) for epoch in range(cfg.trainer.max_epochs) for batch in range(BATCHES)]
        assert seen == total[total.index(begins) :]
        expected, found = (load_weights(find_checkpoint(run, "last") / "model.safetensors")[0] for run in (whole, cut))
        assert all(np.array_equal(expected[name], found[name]) for name in expected)
        rows, again = ([{**row, "epoch_s": 0} for row in read_rows(run / "metrics.jsonl")] for run in (whole, cut))
        assert rows == again

    @pytest.mark.parametrize(
        ("dies", "accumulate", "begins"), [(5, 1, (0, 4)), (13, 1, (1, 5)), (8, 2, (1, 0)), (13, 2, (1, 4))]
    )
    def test_a_run_goes_on_within_its_epoch(self, tmp_path, monkeypatch, dies, accumulate, begins):
        keys = [*DIGITS, f"trainer.accumulate_grad_batches={accumulate}"]
        self.check(tmp_path, dies, begins, monkeypatch, *keys)

    def test_a_compressed_network_goes_on_without_the_weights_it_started_from(self, tmp_path, monkeypatch):
        cfg = self.configure(tmp_path / "start", *DIGITS)
        network = build_network(cfg, build_dataset(cfg, "train"))
        dense = load_backend(cfg).weights_to_numpy(network)
        arrays = prune_weights(prune_channels(dense, find_rules(cfg), 0.5), 0.3)
        cut = {name: array.shape for name, array in dense.items() if array.shape != arrays[name].shape}
        how = {"classes": json.dumps(list("0123456789")), "compression": json.dumps({"dense": cut, "sparsity": 0.3})}
        save_weights(file := tmp_path / "model.safetensors", arrays, how)
        keys = [*DIGITS, f"model.weights={file.as_posix()}"]
        whole = self.fit(self.configure(tmp_path / "whole", *keys))
        cfg = self.configure(tmp_path / "cut", *keys)
        died = self.fit_until(cfg, 12, monkeypatch)
        file.unlink()
        self.fit(cfg, died)
        expected, found = (load_weights(find_checkpoint(run, "last") / "model.safetensors")[0] for run in (whole, died))
        assert all(np.array_equal(expected[name], found[name]) for name in arrays)
        assert found["3.weight"].shape == (12, 6, 3, 3)
        assert (found["3.weight"] == 0).mean() == pytest.approx(0.3, abs=0.01)

    def test_while_the_batch_grows_and_weights_are_averaged(self, tmp_path, monkeypatch):
        keys = ["trainer.batch_growth.every_n_epochs=1", "trainer.checkpoint.every_n_steps=3", "trainer.ema=0.9"]
        # 7 steps of a batch, then steps of 2, 2, 2 and 1: the 9th step ends with batch 4 of the second epoch
        self.check(tmp_path, 12, (1, 4), monkeypatch, *DIGITS, *keys)

    def test_with_images_on_the_device_and_a_teacher(self, tmp_path, monkeypatch):
        teacher = self.fit(self.configure(tmp_path / "teacher", *DIGITS, "trainer.max_epochs=1", "data.image_size=12"))
        keys = ["data.cache=device", f"trainer.distill.teacher={teacher}"]
        self.check(tmp_path, 12, (1, 5), monkeypatch, *DIGITS, *keys)

    def test_from_shards(self, tmp_path, monkeypatch):
        root = tmp_path / "shards"
        for name in ("train", "val"):
            split = build_dataset(load_config(["data=digits"]), name)
            write_shards(split, name, root / name, 20_000, np.arange(len(split)), lambda: None)
        keys = ["data=shards", f"data.root={root.as_posix()}", "data.image_size=8", "data.mean=[0.3]", "data.std=[0.4]"]
        keys += ["model=small_cnn", "model.dropout=0.2"]
        self.check(tmp_path, 12, (1, 5), monkeypatch, *keys)

    def test_in_detection(self, tmp_path, monkeypatch):
        write_digit_scenes(root := tmp_path / "scenes")
        keys = ["task=detection", "model=yolov10n", "data=digit_scenes", f"data.root={root.as_posix()}"]
        keys += ["data.batch_size=2", "data.image_size=32", "trainer.max_epochs=2"]
        self.check(tmp_path, 10, (1, 3), monkeypatch, *keys)

    def test_a_checkpoint_within_an_epoch_is_last_and_not_best(self, tmp_path, monkeypatch):
        cut = self.fit_until(self.configure(tmp_path, *DIGITS), 5, monkeypatch)
        index = json.loads((cut / "checkpoints" / "index.json").read_text("utf-8"))
        assert index["last"] == index["best"] == "epoch=000-step=000004"  # there is no other yet
        self.fit(load_config([], base=cut / "config.yaml"), cut)
        index = json.loads((cut / "checkpoints" / "index.json").read_text("utf-8"))
        assert {entry["score"] is None for entry in index["checkpoints"]} == {False}
        assert index["last"] == "epoch=003-step=000021"

    @pytest.mark.parametrize(
        ("number", "code", "devices"), [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2)]
    )
    def test_a_signal_ends_the_run_with_its_exit_code_and_a_line(self, tmp_path, number, code, devices):
        keys = [*DIGITS, "trainer.max_epochs=1000", f"framework={self.framework}", "tracker=none"]
        keys += ["trainer.accelerator=cpu", f"trainer.devices={devices}"]
        command = [sys.executable, self.script, *keys, f"output_dir={tmp_path.as_posix()}"]
        process = subprocess.Popen(
            command, cwd=TEMPLATE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/checkpoints/index.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        (run,) = tmp_path.iterdir()
        assert process.returncode == code, f"{process.returncode}: {output}"
        assert f"run: {run}" in output.splitlines()[: 2 * devices], "before the first epoch"
        assert output.splitlines()[-1] == f"Interrupted: continue with --resume {run}."
        assert "Traceback" not in output
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "interrupted"

    def test_a_signal_before_the_first_checkpoint_removes_the_folder_and_says_so(self, tmp_path, capsys):
        cfg = load_config([*DIGITS, f"framework={self.framework}", f"output_dir={tmp_path.as_posix()}"])
        with pytest.raises(Stopped), Run(cfg):
            raise Stopped(130)
        said = capsys.readouterr().out.splitlines()
        assert said == ["Interrupted before the first checkpoint, so the folder is removed."]
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("error", "said"), [(KeyError("x"), "Failed: continue with --resume "), (BrokenPipeError, "")]
    )
    def test_a_failure_says_how_to_go_on_unless_nobody_listens(self, tmp_path, capsys, error, said):
        cfg = load_config([*DIGITS, f"framework={self.framework}", f"output_dir={tmp_path.as_posix()}"])
        with pytest.raises((KeyError, BrokenPipeError)), Run(cfg) as run:
            (run.path / "checkpoints" / "epoch=001-step=000001").mkdir(parents=True)
            raise error
        output, log = capsys.readouterr().out, (run.path / "train.log").read_text("utf-8")
        assert output.startswith(said)
        assert ("Failed: " in output, "Traceback" in log) == (bool(said), True)

    def test_a_run_killed_in_its_evaluation_is_evaluated_when_it_goes_on(self, tmp_path, monkeypatch):
        def die(*_: object) -> None:
            raise Killed

        keys = [*DIGITS, "trainer.max_epochs=1"]
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("src.kit.training.runs.evaluate_run", die)
            patch.setattr(Run, "__exit__", lambda *_: None)  # SIGKILL leaves no time for it
            train_run(self.configure(tmp_path, *keys))
        (run,) = tmp_path.iterdir()
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "running"
        weights = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
        train_run(load_config([], base=run / "config.yaml"), resumed=run)
        after = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
        assert all(np.array_equal(weights[name], after[name]) for name in weights)
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "finished"
        assert (run / "evaluation-test.json").is_file()
