"""The schedules follow the same curves as PyTorch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from src.kit.config.compose import load_config
from src.kit.training.loop import Schedule

STEPS, EPOCHS = 10, 7


def torch_rates(make) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("overrides", "make"),
    [
        (["scheduler=constant"], lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (["scheduler=cosine"], lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS)),
        (
            ["scheduler=cosine_restarts", "scheduler.period_epochs=1", "scheduler.period_growth=2"],
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=STEPS, T_mult=2),
        ),
    ],
)
def test_same_curve_as_torch(overrides, make):
    ours = Schedule(load_config(overrides).scheduler, 0.5, STEPS, EPOCHS)
    assert [ours.lr(step) for step in range(STEPS * EPOCHS)] == pytest.approx(torch_rates(make), abs=1e-9)


def test_plateau_lowers_at_the_same_epochs_as_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=2, threshold=0.0)
    ours = Schedule(load_config(["scheduler=plateau", "scheduler.patience=2"]).scheduler, 1.0, STEPS, EPOCHS)
    for loss in [5, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3]:
        theirs.step(loss)
        ours.epoch_end(loss)
        assert ours.lr(0) == pytest.approx(optimizer.param_groups[0]["lr"])
