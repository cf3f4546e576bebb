"""Learning-rate schedules: known points of each curve, warm-up, plateau."""

import pytest

from src.kit.config.compose import load_config
from src.kit.training.loop import Schedule, batches_per_step


def schedule(*overrides: str, steps: int = 10, epochs: int = 10) -> Schedule:
    return Schedule(load_config(list(overrides)).scheduler, 1.0, steps, epochs)


def test_cosine_starts_at_one_halves_in_the_middle_and_ends_at_its_minimum():
    curve = schedule("scheduler=cosine", "scheduler.min_factor=0.2")
    assert [curve.lr(0), curve.lr(50), curve.lr(100)] == pytest.approx([1.0, 0.6, 0.2])


def test_restarts_begin_again_at_one_and_take_longer_each_time():
    curve = schedule("scheduler=cosine_restarts", "scheduler.period_epochs=1", "scheduler.period_growth=2")
    assert [step for step in range(100) if curve.lr(step) == pytest.approx(1.0)] == [0, 10, 30, 70]


def test_one_cycle_peaks_where_it_says():
    curve = schedule("scheduler=one_cycle", "scheduler.rise_fraction=0.25")
    rates = [curve.lr(step) for step in range(100)]
    assert max(rates) == rates[25] == pytest.approx(1.0)
    assert rates[0] == pytest.approx(0.04)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


@pytest.mark.parametrize("name", ["constant", "cosine", "cosine_restarts", "one_cycle", "plateau"])
def test_warm_up_rises_evenly_before_every_schedule(name):
    curve = schedule(f"scheduler={name}", "scheduler.warmup_epochs=0.5")
    assert [curve.lr(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    later = schedule(f"scheduler={name}", epochs=9)
    assert curve.lr(5) == pytest.approx(later.lr(0))


def test_plateau_waits_then_lowers_and_its_state_can_be_restored():
    curve = schedule("scheduler=plateau", "scheduler.patience=1", "scheduler.factor=0.5", "scheduler.min_factor=0.2")
    rates = []
    for loss in [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]:
        curve.epoch_end(loss)
        rates.append(curve.lr(0))
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2]
    other = schedule("scheduler=plateau")
    other.load_state_dict(curve.state_dict())
    assert other.lr(0) == 0.2


def test_the_batch_grows_up_to_its_most():
    keys = ["trainer.accumulate_grad_batches=2", "trainer.batch_growth.every_n_epochs=2"]
    trainer = load_config([*keys, "trainer.batch_growth.factor=3", "trainer.batch_growth.max_batches=20"]).trainer
    assert [batches_per_step(trainer, epoch) for epoch in range(8)] == [2, 2, 6, 6, 18, 18, 20, 20]
    assert batches_per_step(trainer, 10_000) == 20
    trainer.batch_growth.max_batches = 1
    assert batches_per_step(trainer, 10_000) == 2, "never smaller than the first"
    assert batches_per_step(load_config([]).trainer, 10_000) == 1
