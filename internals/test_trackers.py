"""Every tracker really runs, here and without a network; one that fails never stops a training."""

import logging
import sqlite3
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from paths import TEMPLATE
from src.kit import trackers
from src.kit.config import UserError, buildable
from src.kit.trackers import Guard, Tracker, open_tracker

CONFIGS = TEMPLATE / "src" / "configs" / "tracker"
STEPS = {10: 2.5, 20: 1.25}
EXIT_CODE_1 = b"\x92\x01\x02\x08\x01"  # W&B's record of a run's end: field 18, whose field 1 is the code
OWN = """
from src.kit.trackers import Tracker

class TextTracker(Tracker):
    def __init__(self, path, seed):
        self.path, self.seed = path, seed

    def log(self, metrics, step):
        self.path.write_text(f"{self.seed} {step} {metrics}")

def build(run_dir, cfg, *, filename: str = "metrics.txt"):
    return TextTracker(run_dir / filename, cfg["seed"])
"""


def config(name: str) -> DictConfig:
    return OmegaConf.create({"tracker": OmegaConf.load(CONFIGS / f"{name}.yaml"), "model": {"name": "cnn"}, "seed": 7})


def track(name: str, tmp_path: Path) -> Path:
    """Track two steps and a picture, and return the run's folder."""
    run = tmp_path / "outputs" / "a run"
    run.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)).save(run / "loss.png")
    tracker = open_tracker(config(name), run)
    for step, loss in STEPS.items():
        tracker.log({"train/loss": loss, "lr": 0.1}, step)
    tracker.log_picture("loss", run / "loss.png")
    tracker.log_histograms({"weights/fc": np.arange(9, dtype=np.float32), "gradients/fc": np.array([np.nan])}, 20)
    (run / "card.json").write_text("{}", "utf-8")
    tracker.log_results({"test/accuracy": 0.75, "parameters": 12.0}, [run / "card.json"])
    tracker.close()
    assert tracker.alive, "the tracker failed on the way"
    return run


def test_every_tracker_has_its_config() -> None:
    names = {"none", *buildable("tracker")}
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == names
    assert all(config(name).tracker.name == name for name in names)


def test_a_tracker_of_ones_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("own")
    exec(OWN, own.__dict__)
    monkeypatch.setattr(trackers, "load_component", lambda group, name: {("tracker", "own"): own}[group, name])
    cfg = OmegaConf.create({"tracker": {"name": "own", "filename": "log.txt"}, "seed": 7})
    open_tracker(cfg, tmp_path).log({"val/accuracy": 0.5}, 3)
    assert (tmp_path / "log.txt").read_text("utf-8") == "7 3 {'val/accuracy': 0.5}"


def test_none_writes_nothing(tmp_path: Path) -> None:
    assert sorted(path.name for path in track("none", tmp_path).iterdir()) == ["card.json", "loss.png"]


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(track("tensorboard", tmp_path) / "tensorboard"))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("train/loss")} == STEPS
    assert events.Images("loss")[0].width == 6
    assert events.Scalars("test/accuracy")[0].value == 0.75
    assert events.Scalars("train/lr")[-1].step == 20
    parameters = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"model.name" in parameters and b"seed" in parameters


def test_wandb_offline_keeps_the_run_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = track("wandb", tmp_path)
    stored = read_wandb(run, b"train/loss")
    assert list(run.glob("wandb/offline-run-*/files/media/images/loss_*.png"))
    assert b"test/accuracy" in stored
    assert b"card.json" in stored
    assert EXIT_CODE_1 not in stored
    failed = tmp_path / "failed"
    failed.mkdir()
    open_tracker(config("wandb"), failed).close("failed")
    assert read_wandb(failed, EXIT_CODE_1)


def read_wandb(run: Path, expected: bytes) -> bytes:
    """The one file of W&B's records, which its own process writes just after finish() has returned."""
    [stored] = run.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 20
    while expected not in stored.read_bytes():
        assert time.monotonic() < deadline, f"{expected!r} never reached the file"
        time.sleep(0.05)
    return stored.read_bytes()


def test_mlflow_writes_a_local_database(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    run = track("mlflow", tmp_path)
    for name in ("interrupted", "failed"):
        open_tracker(config("mlflow"), run.parent / name).close(name)
    with sqlite3.connect(run.parent / "mlflow.db") as database:
        score = database.execute("SELECT value FROM metrics WHERE key = 'test/accuracy'").fetchone()
        rows = database.execute("SELECT step, value FROM metrics WHERE key = 'train/loss'").fetchall()
        params = dict(database.execute("SELECT key, value FROM params").fetchall())
        runs = database.execute("SELECT name, status FROM runs").fetchall()
    assert dict(rows) == STEPS
    assert score == (0.75,)
    assert params["model.name"] == "cnn"
    assert params["seed"] == "7"
    assert runs == [("a run", "FINISHED"), ("interrupted", "KILLED"), ("failed", "FAILED")]
    assert list(run.parent.glob("mlflow/*/artifacts/loss/loss.png"))
    assert list(run.parent.glob("mlflow/*/artifacts/card.json"))


def test_unknown_tracker_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean tensorboard"):
        open_tracker(OmegaConf.create({"tracker": {"name": "tensorbord"}}), tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_missing_package_names_the_pip_command(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it now raises ImportError
    monkeypatch.delitem(sys.modules, f"src.trainers.trackers.{name}", raising=False)
    with pytest.raises(UserError, match=f"pip install {package}"):
        open_tracker(config(name), tmp_path)


def test_mlflow_that_cannot_start_says_so(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    cfg = config("mlflow")
    cfg.tracker.uri = "nonsense://somewhere"
    with pytest.raises(UserError, match="could not start"):
        open_tracker(cfg, tmp_path)


class Broken(Tracker):
    """A tracker whose disk is full."""

    calls = 0

    def log(self, metrics: object, step: int) -> None:
        self.calls += 1
        raise OSError("No space left on device")


def test_failing_tracker_warns_once_and_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(logging.getLogger("train"), "warning", lambda text, *values: warnings.append(text % values))
    broken = Broken()
    guard = Guard(broken, "broken")
    for step in range(3):
        guard.log({"train/loss": 1.0}, step)
    guard.close()
    assert broken.calls == 1
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
