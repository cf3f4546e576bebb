"""Schedules of learning rate and batch size, the same in both frameworks.

A schedule is a file in `src/trainers/schedules/` with `build(*, total_steps, steps_per_epoch, ...)`, which returns
factor(step): the learning rate of optimizer step `step` (counted from 0, after the warm-up) as a fraction of
`optimizer.lr`. The steps between are fractions when the batch grows. A pure function is enough; one that needs the
validation loss implements `LossSchedule`.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from src.kit.config import build_component


@runtime_checkable
class LossSchedule(Protocol):
    """A schedule that depends on the validation loss; its state is part of each checkpoint."""

    def __call__(self, step: float) -> float:
        """Return the factor of the learning rate."""

    def epoch_end(self, loss: float) -> None:
        """Receive the validation loss of an epoch."""

    def state_dict(self) -> dict[str, float]:
        """Return the state for a checkpoint."""

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""


def anneal(start: float, end: float, progress: float) -> float:
    """Return the value at `progress` (0 to 1) of half a cosine from `start` to `end`; beyond 1 it stays at `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def batches_per_step(trainer: Any, epoch: int) -> int:
    """Return the number of batches of one optimizer step in `epoch`, counted from 0.

    Growing the batch has the effect of lowering the learning rate, with fewer steps (Smith et al. 2018, arXiv
    1711.00489). It grows by accumulating gradients, so that the first epoch already needs all the memory.
    """
    start, growth = int(trainer.accumulate_grad_batches), trainer.batch_growth
    if growth.every_n_epochs is None:
        return start
    return max(start, min(start * growth.factor ** (epoch // growth.every_n_epochs), growth.max_batches))


class Schedule:
    """The learning rate of every optimizer step: a linear warm-up, then the schedule that `cfg.name` names."""

    def __init__(self, cfg: DictConfig, base_lr: float, steps_per_epoch: int, max_epochs: int) -> None:
        self.base_lr, self.warmup = base_lr, round(cfg.warmup_epochs * steps_per_epoch)
        own = {key: value for key, value in cfg.items() if key != "warmup_epochs"}
        total = steps_per_epoch * max_epochs - self.warmup
        self.factor: Callable[[float], float] = build_component(
            "scheduler", own, "", total_steps=total, steps_per_epoch=steps_per_epoch
        )

    def lr(self, step: float) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0."""
        if step < self.warmup:
            return self.base_lr * (step + 1) / self.warmup
        return self.base_lr * self.factor(step - self.warmup)

    def epoch_end(self, loss: float) -> None:
        """Pass the validation loss of an epoch on to a schedule that needs it."""
        if isinstance(self.factor, LossSchedule):
            self.factor.epoch_end(loss)

    def state_dict(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return self.factor.state_dict() if isinstance(self.factor, LossSchedule) else {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""
        if isinstance(self.factor, LossSchedule):
            self.factor.load_state_dict(state)
