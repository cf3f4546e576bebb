"""The loop's parts: losses, early stopping, the steps of trackers; and every key of its components has an effect."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch

from src.kit.config import UserError
from src.kit.config.compose import load_config, option, option_names
from src.kit.lightning import build_optimizer as build_lightning
from src.kit.paddle import build_optimizer as build_paddle
from src.kit.run import Run
from src.kit.trackers import Tracker
from src.kit.training.loop import Collector, EarlyStopping, LossMeter, Schedule
from tests.support import fit

OPTIMIZERS = {
    "adam": ["lr=0.1", "weight_decay=0.5", "betas=[0.5,0.999]", "betas=[0.9,0.5]"],
    "adamw": ["lr=0.1", "weight_decay=0.5", "betas=[0.5,0.999]", "betas=[0.9,0.5]"],
    "rmsprop": ["lr=0.1", "weight_decay=0.5", "alpha=0.5", "momentum=0.5"],
    "sgd": ["lr=0.01", "weight_decay=0.5", "momentum=0.5", "nesterov=false"],
}
ELSEWHERE = {
    "name",
    "file",
    "decoupled",
    "decay_norms_and_biases",
    "layer_decay",
}  # need several layers or steps, as Lion and Muon do
SCHEDULES = {
    "constant": ["warmup_epochs=1"],
    "cosine": ["warmup_epochs=1", "min_factor=0.5"],
    "cosine_restarts": ["warmup_epochs=1", "min_factor=0.5", "period_epochs=1", "period_growth=3"],
    "linear": ["warmup_epochs=1", "min_factor=0.5"],
    "one_cycle": ["warmup_epochs=1", "rise_fraction=0.5", "start_factor=0.5", "end_factor=0.5"],
    "plateau": ["warmup_epochs=1", "factor=0.5", "patience=1", "min_factor=0.05"],
}


def minimise(framework: str, *keys: str) -> np.ndarray:
    """The weight after five steps down a slope that steepens, float32 (3, 2)."""
    cfg = load_config([f"framework={framework}", *keys])
    start = np.arange(6, dtype=np.float32).reshape(3, 2) - 2
    if framework == "lightning":
        layer = torch.nn.Linear(2, 3, bias=False)
        layer.weight.data = torch.tensor(start)
        optimizer = build_lightning(cfg, layer)
        for step in range(1, 6):
            optimizer.zero_grad()
            (layer.weight**2 * step).sum().backward()
            optimizer.step()
        return layer.weight.detach().numpy()
    layer = paddle.nn.Linear(3, 2, bias_attr=False)
    layer.weight.set_value(paddle.to_tensor(start))
    optimizer = build_paddle(cfg, layer)
    for step in range(1, 6):
        optimizer.clear_grad()
        (layer.weight**2 * step).sum().backward()
        optimizer.step()
    return layer.weight.numpy()


@pytest.mark.parametrize("name", sorted({*option_names("optimizer")} - {"lion", "muon"}))
def test_every_key_of_an_optimizer_has_the_same_effect_in_both_frameworks(name):
    cases = [[], *([f"optimizer.{key}"] for key in OPTIMIZERS[name])]
    tried = {key.partition("=")[0] for key in OPTIMIZERS[name]}
    assert tried == set(option("optimizer", name, "lightning")) - ELSEWHERE
    ends = [[minimise(each, f"optimizer={name}", *keys) for keys in cases] for each in ("lightning", "paddle")]
    for ours, theirs in zip(*ends, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    for keys, end in zip(cases[1:], ends[0][1:], strict=True):
        assert np.abs(end - ends[0][0]).max() > 1e-4, keys


def curve(*keys: str) -> list[float]:
    """The learning rates of 30 epochs of 4 steps, in which the validation loss falls no more after the fifth."""
    schedule = Schedule(load_config(list(keys)).scheduler, 1.0, 4, 30)
    rates = []
    for epoch in range(30):
        rates += [schedule.lr(epoch * 4 + step) for step in range(4)]
        schedule.epoch_end(float(max(5 - epoch, 0)))
    return rates


@pytest.mark.parametrize("name", option_names("scheduler"))
def test_every_key_of_a_schedule_has_an_effect(name):
    assert {key.partition("=")[0] for key in SCHEDULES[name]} == set(option("scheduler", name)) - {"name"}
    usual = curve(f"scheduler={name}")
    for key in SCHEDULES[name]:
        assert curve(f"scheduler={name}", f"scheduler.{key}") != usual, key


def test_early_stopping_compares_with_the_best_and_not_with_the_last():
    stopping = EarlyStopping(patience=3, min_delta=0.0)
    assert [stopping.should_stop(score) for score in (0.9, 0.5, 0.6, 0.7)] == [False, False, False, True]
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert [stopping.should_stop(score) for score in (0.5, 0.55, 0.61, 0.65)] == [False, False, False, False]
    assert not EarlyStopping(patience=None, min_delta=0.0).should_stop(-1.0)


def test_early_stopping_goes_on_from_its_state():
    first = EarlyStopping(patience=2, min_delta=0.0)
    first.should_stop(0.9)
    first.should_stop(0.8)
    again = EarlyStopping(patience=2, min_delta=0.0)
    again.load_state_dict(first.state_dict())
    assert again.should_stop(0.85)


class Task:
    """What a collector needs of a task."""

    def collect(self, outputs: np.ndarray, *targets: np.ndarray) -> list[np.ndarray]:
        return [outputs]


def test_the_validation_loss_weighs_samples_and_not_batches_or_ranks_alike():
    first, second = Collector(Task(), np.asarray), Collector(Task(), np.asarray)
    first.add(np.zeros((6, 1)), [np.zeros(6)], np.float32(1.0))
    first.add(np.zeros((2, 1)), [np.zeros(2)], np.float32(5.0))
    second.add(np.zeros((1, 1)), [np.zeros(1)], np.float32(10.0))
    assert first.result()[1] == pytest.approx((6 * 1 + 2 * 5) / 8)
    collected, loss = first.result(lambda mine: [mine, (second.result()[0], 10.0, 1)])
    assert loss == pytest.approx((6 * 1 + 2 * 5 + 10) / 9)
    assert [len(part) for part in collected] == [6, 2, 1]


def test_the_training_loss_is_the_mean_of_all_batches_of_the_epoch_however_often_they_are_fetched():
    meter = LossMeter(lambda losses: [float(loss) for loss in losses])
    for fetched in ([1.0, 2.0, 3.0], [8.0]):
        meter.pending += fetched
        assert meter.fetch(explain) == fetched
    assert meter.mean() == 3.5
    meter.start()
    meter.pending.append(5.0)
    meter.fetch(explain)
    assert meter.mean() == 5.0
    meter.pending += [1.0, math.inf, 2.0, math.nan]
    with pytest.raises(UserError, match="inf, 2 batches before the last"):
        meter.fetch(explain)


def explain(value: float, after: int) -> UserError:
    return UserError(f"{value}, {-after} batches before the last")


class Recorder(Tracker):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, set[str]]] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.seen.append((step, set(metrics)))


def test_a_tracker_gets_optimizer_steps_and_those_of_a_resumed_run_again(tmp_path: Path):
    keys = ["framework=paddle", "data=digits", "data.batch_size=32", "trainer.max_epochs=2", "tracker=none"]
    keys += ["trainer.limit_train_batches=6", "trainer.accumulate_grad_batches=2", "log_every_n_steps=4"]
    cfg = load_config([*keys, f"output_dir={tmp_path.as_posix()}"])
    with Run(cfg) as run:
        run.tracker = recorder = Recorder()
        fit(cfg, run)
    within = {"train/loss_step", "lr", "train/grad_norm", "train/grad_norm_max", "memory/ram_mib"}
    epoch = {"train/loss", "val/loss", "val/accuracy"}
    assert recorder.seen == [(2, within), (3, within), (3, epoch), (5, within), (6, within), (6, epoch)]
    rows = run.rows
    with Run(cfg, run.path) as again:
        again.tracker = recorder = Recorder()
        again.restore_epochs(rows[:1])
    assert recorder.seen == [(3, epoch)]
