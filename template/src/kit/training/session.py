"""What a trainer does besides gradients: schedule, metrics, early stopping, checkpoints. Knows no framework."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.run import Run
from src.kit.training import tasks
from src.kit.training.checkpoints import Checkpoints
from src.kit.training.early_stopping import EarlyStopping
from src.kit.training.loss_meter import LossMeter
from src.kit.training.schedules import Schedule, batches_per_step


class Session:
    """One training run, driven by a backend: `step` after every batch, `end_epoch` after every validation."""

    def __init__(
        self, cfg: DictConfig, run: Run, batches: int, to_floats: Callable[[Sequence[Any]], list[float]]
    ) -> None:
        """`batches` is the number of batches an epoch, `to_floats` fetches a list of scalar tensors at once."""
        self.cfg, self.run, self.batches, self.task = cfg, run, batches, tasks.load(cfg.task)
        keep, stop = cfg.trainer.checkpoint, cfg.trainer.early_stopping
        self.checkpoints = Checkpoints(run.path / "checkpoints", keep.keep_best, keep.keep_last, self.task.MODE)
        self.epoch = self.batch = self.step_count = 0  # how many are done; of batches, in this epoch
        self.accumulate = self.first_accumulate = batches_per_step(cfg.trainer, 0)
        self.steps = math.ceil(batches / self.accumulate)  # an epoch, before the batch grows
        self.schedule = Schedule(cfg.scheduler, cfg.optimizer.lr, self.steps, cfg.trainer.max_epochs)
        self.losses, self.stopping = LossMeter(to_floats), EarlyStopping(stop.patience, stop.min_delta)
        self.parts: dict[str, Any] = {"schedule": self.schedule, "losses": self.losses, "stopping": self.stopping}
        # read once: looking a key up in the configuration takes 10 microseconds, every step
        self.log_every, self.save_every = cfg.log_every_n_steps, keep.every_n_steps
        self.lr, self.started = 0.0, time.perf_counter()
        gc.freeze()  # the frameworks' million objects stay: looking through them takes milliseconds, again and again
        run.progress.start(cfg.trainer.max_epochs)

    def next_lr(self) -> float:
        """Learning rate of the optimizer step that the coming batch belongs to."""
        done = self.batch // self.accumulate * self.accumulate / self.first_accumulate
        self.lr = self.schedule.lr(self.epoch * self.steps + done)
        return self.lr

    def start_epoch(self) -> None:
        """Begin to count the epoch's time and losses, or go on in its middle."""
        self.started = time.perf_counter()
        self.accumulate = batches_per_step(self.cfg.trainer, self.epoch)
        if self.batch == 0:
            self.losses.start()

    def draw_seed(self) -> int:
        """Seed of the framework's random numbers from here on: a resumed run needs no state of a generator."""
        if self.batch == 0:
            return int(self.cfg.seed + self.epoch + 1)
        return int(np.random.SeedSequence([self.cfg.seed, self.epoch, self.batch]).generate_state(1)[0])

    def updates(self) -> bool:
        """Whether the coming batch completes an optimizer step."""
        return (self.batch + 1) % self.accumulate == 0 or self.batch + 1 == self.batches

    def step(self, loss: Any) -> None:
        """Take note of the epoch's next batch; `loss` is a detached scalar tensor."""
        self.losses.pending.append(loss)
        self.step_count += int(self.updates())
        self.batch += 1
        self.run.progress.step(self.epoch, self.batch, self.batches, loss, self.lr)
        if len(self.losses.pending) >= self.log_every:
            self.flush()

    def flush(self) -> None:
        """Fetch the pending losses, stop at one that is not finite, and log their mean."""
        where = f"step {self.step_count} of epoch {self.epoch + 1}"
        if fetched := self.losses.fetch(where, self.cfg.optimizer.lr):
            self.run.tracker.log({"train/loss_step": float(np.mean(fetched)), "lr": self.lr}, self.step_count)

    def save_within_epoch(self, save: Callable[[Path], None]) -> bool:
        """Keep a checkpoint if one is due after this batch; the backend then draws from `draw_seed` anew."""
        stepped = self.batch % self.accumulate == 0 and self.batch < self.batches
        if not (self.save_every and stepped and self.step_count % self.save_every == 0):
            return False
        self.flush()
        self.keep(None, save)
        return True

    def end_epoch(
        self, kept: Sequence[Any], classes: Sequence[str], loss: float | None, save: Callable[[Path], None]
    ) -> bool:
        """Log the epoch, keep its checkpoint, and say whether to stop.

        Args:
            kept: what the task kept of the predictions of the validation split.
            loss: mean validation loss, None where predictions have none.
            save: writes a checkpoint into the folder that it is given.
        """
        self.flush()
        values = {f"val/{name}": value for name, value in self.task.metrics(kept, classes).items()}
        row = {"epoch": self.epoch + 1, "step": self.step_count, "lr": self.lr, "train/loss": self.losses.mean()}
        row |= ({} if loss is None else {"val/loss": loss}) | values | {"epoch_s": time.perf_counter() - self.started}
        self.run.log_epoch(row)
        self.run.progress.epoch(self.epoch, row)
        score = row[self.task.MONITOR]
        gain = score if self.task.MODE == "max" else -score
        self.schedule.epoch_end(-gain if loss is None else loss)
        self.epoch, self.batch = self.epoch + 1, 0
        stop = self.stopping.should_stop(gain)
        if stop:
            waited = self.stopping.waited
            self.run.log.info("Stopped early: %s has not improved for %d epochs.", self.task.MONITOR, waited)
        self.keep(score, save)
        return stop

    def keep(self, score: float | None, save: Callable[[Path], None]) -> None:
        """Let rank 0 keep a checkpoint."""
        if self.run.main:
            self.checkpoints.add(self.epoch, self.step_count, score, save)
        else:
            save(self.run.path)  # every rank takes part in Lightning's save, and only rank 0 writes

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on exactly, beside weights and optimizer."""
        own = {"epoch": self.epoch, "batch": self.batch, "step_count": self.step_count}
        return own | {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.epoch, self.batch, self.step_count = state["epoch"], state["batch"], state["step_count"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.run.keep_epochs(self.epoch)
