"""Schedules of learning rate and batch as pure functions, so that both frameworks follow the same curves.

Every curve returns a factor of `optimizer.lr`. `step` counts from 0; `total` and `epoch` count optimizer steps.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from omegaconf import DictConfig


def constant(cfg: Any, step: float, total: int, epoch: int) -> float:
    """1 throughout."""
    return 1.0


def cosine(cfg: Any, step: float, total: int, epoch: int) -> float:
    """From 1 down to `min_factor` along half a cosine (Loshchilov & Hutter 2016, arXiv 1608.03983)."""
    return anneal(1.0, cfg.min_factor, step / max(total, 1))


def cosine_restarts(cfg: Any, step: float, total: int, epoch: int) -> float:
    """`cosine`, started again after `period_epochs`, then after `period_growth` times as many, and so on."""
    period, left = cfg.period_epochs * epoch, float(step)
    while left >= period:
        left -= period
        period *= cfg.period_growth
    return anneal(1.0, cfg.min_factor, left / period)


def one_cycle(cfg: Any, step: float, total: int, epoch: int) -> float:
    """Up from `start_factor` to 1 in `rise_fraction` of the run, then down to `end_factor` (arXiv 1803.09820)."""
    top = cfg.rise_fraction * total
    if step < top:
        return anneal(cfg.start_factor, 1.0, step / top)
    return anneal(1.0, cfg.end_factor, (step - top) / max(total - top, 1))


def anneal(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`; `progress` beyond 1 stays at `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


CURVES: dict[str, Callable[[Any, float, int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "plateau": constant,  # lowered by Schedule.epoch_end when the validation loss stalls
}


def batches_per_step(trainer: Any, epoch: int) -> int:
    """How many batches make one optimizer step in `epoch`, which counts from 0.

    To grow the batch has the effect of lowering the learning rate, with fewer steps (Smith et al. 2018, arXiv
    1711.00489). It grows by accumulating gradients, so that what fits the memory at first fits to the end.
    """
    start, growth = int(trainer.accumulate_grad_batches), trainer.batch_growth
    if growth.every_n_epochs is None:
        return start
    return max(start, min(start * growth.factor ** (epoch // growth.every_n_epochs), growth.max_batches))


class Schedule:
    """The learning rate of every optimizer step: a linear warm-up, then one of `CURVES`."""

    def __init__(self, cfg: DictConfig, base_lr: float, steps_per_epoch: int, max_epochs: int) -> None:
        # plain attributes: reading a DictConfig takes 10 microseconds a key, every step
        self.cfg: Any = SimpleNamespace(**cfg)
        self.base_lr, self.epoch = base_lr, steps_per_epoch
        self.warmup = round(cfg.warmup_epochs * steps_per_epoch)
        self.total = steps_per_epoch * max_epochs - self.warmup
        self.plateau_factor, self.best_loss, self.stalled = 1.0, math.inf, 0

    def lr(self, step: float) -> float:
        """Learning rate of optimizer step `step`, counted from 0; growing batches make fractions of the first steps."""
        if step < self.warmup:
            return self.base_lr * (step + 1) / self.warmup
        curve = CURVES[self.cfg.name](self.cfg, step - self.warmup, self.total, self.epoch)
        return self.base_lr * self.plateau_factor * curve

    def epoch_end(self, loss: float) -> None:
        """Multiply the rate by `factor` after more than `patience` epochs without a lower loss (plateau only)."""
        if self.cfg.name != "plateau":
            return
        self.stalled = 0 if loss < self.best_loss else self.stalled + 1
        self.best_loss = min(self.best_loss, loss)
        if self.stalled > self.cfg.patience:
            self.plateau_factor = max(self.plateau_factor * self.cfg.factor, self.cfg.min_factor)
            self.stalled = 0

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to go on where this schedule stands."""
        return {"plateau_factor": self.plateau_factor, "best_loss": self.best_loss, "stalled": self.stalled}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state`."""
        self.plateau_factor, self.best_loss, self.stalled = (
            state["plateau_factor"],
            state["best_loss"],
            int(state["stalled"]),
        )
