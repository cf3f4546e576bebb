"""What a trainer does besides gradients: schedule, metrics, early stopping, checkpoints. Knows no framework."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src import tasks
from src.trainers.checkpoints import Checkpoints
from src.trainers.schedules import Schedule
from src.utils.errors import UserError
from src.utils.run import Run


class Session:
    """One training run, driven by a backend: `step` after every batch, `end_epoch` after every validation."""

    def __init__(
        self, cfg: DictConfig, run: Run, batches: int, to_floats: Callable[[Sequence[Any]], list[float]]
    ) -> None:
        """`batches` is the number of batches an epoch, `to_floats` fetches a list of scalar tensors at once."""
        self.cfg, self.run, self.to_floats = cfg, run, to_floats
        self.task = tasks.load(cfg.task)
        self.batches = batches
        steps = math.ceil(batches / cfg.trainer.accumulate_grad_batches)
        self.schedule = Schedule(cfg.scheduler, cfg.optimizer.lr, steps, cfg.trainer.max_epochs)
        keep = cfg.trainer.checkpoint
        self.checkpoints = Checkpoints(run.path / "checkpoints", keep.keep_best, keep.keep_last, self.task.MODE)
        gc.freeze()  # the frameworks' million objects stay: looking through them takes milliseconds, again and again
        run.progress.start(cfg.trainer.max_epochs)
        self.epoch, self.step_count, self.lr = 0, 0, 0.0
        # read once: looking a key up in the configuration takes 10 microseconds, every step
        self.log_every, self.accumulate = cfg.log_every_n_steps, cfg.trainer.accumulate_grad_batches
        self.best, self.waited = -math.inf, 0
        self.pending: list[Any] = []  # losses still on the device: fetching one makes the CPU wait for the GPU
        self.losses: list[float] = []
        self.started = time.perf_counter()

    def next_lr(self) -> float:
        """Learning rate of the optimizer step that the coming batch belongs to."""
        self.lr = self.schedule.lr(self.step_count)
        return self.lr

    def start_epoch(self) -> None:
        """Begin to count the epoch's time and losses."""
        self.started, self.losses = time.perf_counter(), []

    def step(self, loss: Any, batch: int) -> None:
        """Take note of batch `batch` (from 0) of this epoch; `loss` is a detached scalar tensor."""
        self.pending.append(loss)
        if (batch + 1) % self.accumulate == 0 or batch + 1 == self.batches:
            self.step_count += 1
        self.run.progress.step(self.epoch, batch + 1, self.batches, loss, self.lr)
        if len(self.pending) >= self.log_every:
            self.flush(batch)

    def flush(self, batch: int) -> None:
        """Fetch the pending losses, stop at one that is not finite, and log their mean."""
        fetched, self.pending = self.to_floats(self.pending), []
        if not np.isfinite(fetched).all():
            bad = next(value for value in fetched if not math.isfinite(value))
            raise UserError(
                f"The loss became {bad} in the {len(fetched)} batches before step {self.step_count} of epoch "
                f"{self.epoch + 1}: lower optimizer.lr={self.cfg.optimizer.lr:g}, set trainer.gradient_clip_val=1.0, "
                "or use trainer.precision=32-true."
            )
        self.losses += fetched
        mean = float(np.mean(fetched))
        self.run.tracker.log({"train/loss_step": mean, "lr": self.lr}, self.step_count)

    def end_epoch(
        self, kept: Sequence[Any], classes: Sequence[str], loss: float | None, save: Callable[[Path], None]
    ) -> bool:
        """Log the epoch, keep its checkpoint, and say whether to stop.

        Args:
            kept: what the task kept of the predictions of the validation split.
            loss: mean validation loss, None where predictions have none.
            save: writes a checkpoint into the folder that it is given.
        """
        if self.pending:
            self.flush(self.batches - 1)
        values = {f"val/{name}": value for name, value in self.task.metrics(kept, classes).items()}
        row = {
            "epoch": self.epoch + 1,
            "step": self.step_count,
            "lr": self.lr,
            "train/loss": float(np.mean(self.losses)),
        }
        row |= ({} if loss is None else {"val/loss": loss}) | values | {"epoch_s": time.perf_counter() - self.started}
        self.run.log_epoch(row)
        self.run.progress.epoch(self.epoch, row)
        score = row[self.task.MONITOR]
        gain = score if self.task.MODE == "max" else -score
        self.schedule.epoch_end(-gain if loss is None else loss)
        self.epoch += 1
        stop = self.should_stop(gain)
        if self.run.main:
            self.checkpoints.add(self.epoch, self.step_count, score, save)
        else:
            save(self.run.path)  # every rank takes part in Lightning's save, and only rank 0 writes
        return stop

    def should_stop(self, score: float) -> bool:
        """Whether the score has not risen by more than `min_delta` for `patience` epochs; higher scores are better."""
        rule = self.cfg.trainer.early_stopping
        self.waited = 0 if score > self.best + (rule.min_delta if self.best > -math.inf else 0) else self.waited + 1
        self.best = max(self.best, score)
        stop = rule.patience is not None and self.waited >= max(rule.patience, 1)
        if stop:
            self.run.log.info("Stopped early: %s has not improved for %d epochs.", self.task.MONITOR, self.waited)
        return stop

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on exactly, beside weights and optimizer."""
        own = {"epoch": self.epoch, "step_count": self.step_count, "best": self.best, "waited": self.waited}
        return own | {"schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.step_count = state["epoch"], state["step_count"]
        self.best, self.waited = state["best"], state["waited"]
        self.run.keep_epochs(self.epoch)
