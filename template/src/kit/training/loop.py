"""What a trainer does besides gradients: learning rate, metrics, early stopping, checkpoints. Knows no framework."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError, build_component
from src.kit.errors import stop_at
from src.kit.loading import BatchLoader
from src.kit.run import Run
from src.kit.training.checkpoints import Checkpoints, parts_of
from src.kit.training.experiment import Experiment
from src.kit.training.inspection import Inspector, Layers, not_finite


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


def average_decay(decay: float, step: int) -> float:
    """Return how much of the average of weights remains at optimizer step `step`, counted from 1.

    It rises to `decay`, so that the first random weights are soon forgotten: (1 + n) / (10 + n), as in TensorFlow's
    ExponentialMovingAverage with num_updates. A resumed run needs no state for it.
    """
    return min(decay, (1 + step) / (10 + step))


def check_average(trainer: Any) -> None:
    """Raise UserError if a training is to average its weights in two ways."""
    if trainer.ema and trainer.swa is not None:
        raise UserError("trainer.ema and trainer.swa exclude each other: set one.")


class Schedule:
    """The learning rate of every optimizer step: a linear warm-up, then the schedule that `cfg.name` names."""

    def __init__(self, cfg: DictConfig, base_lr: float, steps_per_epoch: int, max_epochs: int) -> None:
        self.base_lr, self.warmup = base_lr, round((cfg.get("warmup_epochs") or 0) * steps_per_epoch)
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


class TrainingLoop:
    """Counts batches, optimizer steps and epochs for a backend: `step` after a batch, `end_epoch` after validation."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        loader: BatchLoader,
        to_floats: Callable[[Sequence[Any]], list[float]],
        batches: int | None = None,
    ) -> None:
        """Train with the batches of `loader`, or with the first `batches` of them in each epoch.

        `to_floats` fetches a list of scalar tensors at once.
        """
        cfg = experiment.cfg
        self.cfg, self.run, self.loader, self.task = cfg, run, loader, experiment.task
        self.batches = batches or len(loader)
        self.score = experiment.score
        saving, stop = cfg.trainer.checkpoint, cfg.trainer.early_stopping
        self.checkpoints = Checkpoints(run.path / "checkpoints", saving.keep_best, saving.keep_last, self.task.mode)
        self.epoch = self.batch = self.step_count = 0  # finished ones; batches of this epoch
        self.resumed = False  # within this epoch
        self.accumulate = self.first_accumulate = batches_per_step(cfg.trainer, 0)
        self.steps = math.ceil(self.batches / self.accumulate)  # in an epoch, before the batch grows
        self.schedule = experiment.schedule or Schedule(
            cfg.scheduler, cfg.optimizer.lr, self.steps, cfg.trainer.max_epochs
        )
        self.losses, self.stopping = LossMeter(to_floats), EarlyStopping(stop.patience, stop.min_delta)
        self.parts: dict[str, Any] = {"schedule": self.schedule, "losses": self.losses, "stopping": self.stopping}
        # read once: looking a key up in the configuration takes 10 microseconds, every step
        self.log_every, self.save_every = cfg.log_every_n_steps, saving.every_n_steps
        self.lr, self.started = 0.0, time.perf_counter()
        self.inspector: Inspector | None = None
        run.progress.start(cfg.trainer.max_epochs)

    def inspect(self, layers: Layers) -> None:
        """Follow the network's layers too."""
        self.inspector = Inspector(self.cfg.trainer.inspect, self.run, layers)

    def next_lr(self) -> float:
        """Learning rate of the optimizer step that the coming batch belongs to; may open a debugger in the caller."""
        if self.inspector and self.updates():
            self.inspector.start_step(self.step_count + 1)
        done = self.batch // self.accumulate * self.accumulate / self.first_accumulate
        self.lr = self.schedule.lr(self.epoch * self.steps + done)
        stop_at(self.step_count + 1, self.run.main)  # last, or the debugger would show the next call
        return self.lr

    def start_epoch(self) -> None:
        """Start the epoch's batches, clock and losses, or continue in its middle."""
        self.started = time.perf_counter()
        self.accumulate = batches_per_step(self.cfg.trainer, self.epoch)
        if not self.resumed:
            self.loader.set_epoch(self.epoch)
            self.losses.start()

    def draw_seed(self) -> int:
        """Seed of the framework's random numbers from here on: a resumed run needs no generator state."""
        if self.batch == 0 and not self.resumed:
            return int(self.cfg.seed + self.epoch + 1)
        return int(np.random.SeedSequence([self.cfg.seed, self.epoch, self.batch]).generate_state(1)[0])

    def updates(self) -> bool:
        """Whether the coming batch completes an optimizer step."""
        return (self.batch + 1) % self.accumulate == 0 or self.batch + 1 == self.batches

    def check_loss(self, loss: Any, forward: Callable[[], Any]) -> None:
        """Stop at a loss that is not finite before it reaches the weights, where that takes no waiting: on a CPU.

        Args:
            forward: repeats the forward pass of the batch.

        Raises:
            UserError: it is not finite; the message names the step and the layer.
        """
        if self.inspector and (place := self.inspector.check(loss, forward)):
            raise self.explain(float(loss), 1, place)

    def before_update(self) -> None:
        """Look at the gradients of the coming optimizer step.

        Raises:
            UserError: they are not finite; on a GPU `step` finds that out.
        """
        if self.inspector and (place := self.inspector.gradients(self.step_count + 1)):
            raise self.explain(math.nan, 1, place)

    def explain(self, value: float, after: int, place: str | None = None) -> UserError:
        """The error of the loss `value` of the batch `after` the last counted one: 1 is the coming one."""
        done = self.batch // self.accumulate if self.batch < self.batches else self.steps_of(self.batch)
        step = self.step_count - done + self.steps_of(self.batch + after)
        place = place or (self.inspector.blame(step) if self.inspector else None)
        return not_finite(value, f"step {step} of epoch {self.epoch + 1}", place, self.cfg.optimizer.lr)

    def average_rest(self) -> float:
        """How much of the average of weights remains when the coming batch's take part in it; 1 if they do not.

        `trainer.swa` takes the weights after each epoch, all with the same weight (Izmailov et al. 2018, arXiv
        1803.05407).
        """
        if not self.updates():
            return 1.0
        if self.cfg.trainer.ema:
            return average_decay(self.cfg.trainer.ema, self.step_count + 1)
        taken = self.epoch - self.first_averaged()
        return taken / (taken + 1) if taken >= 0 and self.batch + 1 == self.batches else 1.0

    def averaged(self) -> bool:
        """Whether there is an average of weights by now."""
        if self.cfg.trainer.swa is None:
            return True
        return self.epoch + (self.batch >= self.batches) > self.first_averaged()

    def first_averaged(self) -> int:
        """The first epoch, counted from 0, after which `trainer.swa` takes the weights."""
        epochs = int(self.cfg.trainer.max_epochs)
        return min(round(self.cfg.trainer.swa * epochs), epochs - 1)

    def steps_of(self, batches: int) -> int:
        """Optimizer steps that the first `batches` of an epoch take part in."""
        return math.ceil(batches / self.accumulate)

    def step(self, loss: Any) -> None:
        """Count the epoch's next batch; `loss` is a detached scalar tensor."""
        self.losses.pending.append(loss)
        if self.updates():
            self.step_count += 1
            if self.inspector:
                self.inspector.end_step(self.step_count)
        self.batch += 1
        self.run.progress.step(self.epoch, self.batch, self.batches, loss, self.lr)
        if len(self.losses.pending) >= self.log_every:
            self.flush()

    def flush(self) -> None:
        """Fetch the pending losses, stop at one that is not finite, and log their mean."""
        if fetched := self.losses.fetch(self.explain):
            values = {"train/loss_step": float(np.mean(fetched)), "lr": self.lr}
            values |= self.inspector.metrics(self.epoch, self.step_count) if self.inspector else {}
            self.run.tracker.log(values, self.step_count)

    def save_within_epoch(self, save: Callable[[Path], None]) -> bool:
        """Save a checkpoint if one is due after this batch; the backend then reseeds with `draw_seed`."""
        stepped = self.batch % self.accumulate == 0 and self.batch < self.batches
        if not (self.save_every and stepped and self.step_count % self.save_every == 0):
            return False
        self.flush()
        self.save_checkpoint(None, save)
        return True

    def end_epoch(
        self,
        collected: Sequence[Any],
        loss: float | None,
        save: Callable[[Path], None],
        logged: Mapping[str, float] | None = None,
    ) -> bool:
        """Log the epoch, save its checkpoint, and return whether to stop.

        Args:
            collected: what the task collected from the predictions of the validation split.
            loss: mean validation loss, None where predictions have none.
            save: writes a checkpoint into the folder it is called with.
            logged: further values of this epoch, such as those of `self.log`.
        """
        self.flush()
        values = {f"val/{name}": value for name, value in self.score(collected).items()}
        row = {"epoch": self.epoch + 1, "step": self.step_count, "lr": self.lr, "train/loss": self.losses.mean()}
        row |= ({} if loss is None else {"val/loss": loss}) | values | dict(logged or {})
        row["epoch_s"] = time.perf_counter() - self.started
        self.run.log_epoch(row)
        self.run.progress.epoch(self.epoch, row)
        score = row[self.task.monitor]
        gain = score if self.task.mode == "max" else -score
        self.schedule.epoch_end(-gain if loss is None else loss)
        self.epoch, self.batch, self.resumed = self.epoch + 1, 0, False
        stop = self.stopping.should_stop(gain)
        if stop:
            waited = self.stopping.waited
            self.run.log.info("Stopped early: %s has not improved for %d epochs.", self.task.monitor, waited)
        self.save_checkpoint(score, save)
        return stop

    def save_checkpoint(self, score: float | None, save: Callable[[Path], None]) -> None:
        """Save a checkpoint on rank 0."""
        if self.run.main:
            self.checkpoints.add(self.epoch, self.step_count, score, save)
        else:
            save(self.run.path)  # every rank takes part, and only rank 0 writes

    def state_dict(self) -> dict[str, Any]:
        """Everything besides weights and optimizer that a resumed run needs to continue exactly."""
        parts = self.loader.position(self.batch) if self.batch else []
        own: dict[str, Any] = {"epoch": self.epoch, "parts": parts, "step_count": self.step_count}
        return own | {"rows": self.run.rows} | {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, also with another number of processes or samples in a batch than it was saved with."""
        self.epoch, self.step_count = state["epoch"], state["step_count"]
        self.resumed = bool(parts := parts_of(state, self.loader, self.batches))
        self.batch = min(self.loader.resume(self.epoch, parts), self.batches - 1) if parts else 0
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.run.restore_epochs(state["rows"])


class LossMeter:
    """Mean of an epoch's losses, fetched together now and then: fetching each would make the CPU wait for the GPU."""

    def __init__(self, to_floats: Callable[[Sequence[Any]], list[float]]) -> None:
        """`to_floats` fetches a list of scalar tensors at once."""
        self.to_floats = to_floats
        self.pending: list[Any] = []
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        self.total, self.count = 0.0, 0

    def fetch(self, explain: Callable[[float, int], UserError]) -> list[float]:
        """Fetch the losses since the last call and add them to the mean.

        Raises:
            UserError: one of them is not finite; `explain` makes it of its value and place, 0 for the last, -1 for the
                one before.
        """
        fetched, self.pending = self.to_floats(self.pending) if self.pending else [], []
        for number, value in enumerate(fetched, 1):
            if not math.isfinite(value):
                raise explain(value, number - len(fetched))
        self.total, self.count = self.total + sum(fetched), self.count + len(fetched)
        return fetched

    def mean(self) -> float:
        """Mean of the epoch's losses fetched so far."""
        return self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue within the epoch."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.total, self.count = state["total"], state["count"]


class EarlyStopping:
    """Counts the epochs since the score last improved; higher scores are better."""

    def __init__(self, patience: int | None, min_delta: float) -> None:
        """Stop after `patience` epochs without a score above the best by more than `min_delta`; None never stops.

        A smaller gain does not raise the best, so several of them count together, as in Keras and Lightning.
        """
        self.patience, self.min_delta = patience, min_delta
        self.best, self.waited = -math.inf, 0

    def should_stop(self, score: float) -> bool:
        """Whether to stop after an epoch with this score."""
        rises = score > self.best + (self.min_delta if self.best > -math.inf else 0)
        self.waited = 0 if rises else self.waited + 1
        self.best = score if rises else self.best
        return self.patience is not None and self.waited >= max(self.patience, 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.best, self.waited = state["best"], state["waited"]


class Collector:
    """Hands the outputs of each batch to the task when the next batch comes: by then the device has computed them."""

    def __init__(self, task: Any, to_numpy: Callable[[Any], np.ndarray], copy: Any = None) -> None:
        """`to_numpy` fetches a tensor; `copy` begins to copy some, and returns the copies and what waits for them."""
        self.task, self.to_numpy, self.copy = task, to_numpy, copy or (lambda tensors: (tensors, lambda: None))
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.collected: list[Any] = []
        self.loss, self.samples = 0.0, 0  # the sum of the losses of these samples
        self.pending: list[tuple[Sequence[Any], Callable[[], None], int]] = []  # one batch at most

    def add(self, outputs: Any, targets: Sequence[Any], loss: Any = None) -> None:
        """Add a batch's outputs, its targets and, where outputs have one, its mean loss: all of them tensors."""
        copies, wait = self.copy([outputs, *targets, *([] if loss is None else [loss])])
        self.flush()
        self.pending = [(copies, wait, len(targets))]

    def flush(self) -> None:
        """Collect what is still pending."""
        while self.pending:
            copies, wait, targets = self.pending.pop()
            wait()
            outputs, *arrays = (self.to_numpy(each) for each in copies)
            self.collected += self.task.collect(outputs, *arrays[:targets])
            if len(arrays) > targets:
                self.loss += len(arrays[0]) * float(arrays[targets])
                self.samples += len(arrays[0])

    def result(self, gather: Callable[[Any], list[Any]] = lambda mine: [mine]) -> tuple[list[Any], float | None]:
        """What was collected, and the mean loss or None; `gather` returns this rank's object and all other ranks'."""
        self.flush()
        ranks = gather((self.collected, self.loss, self.samples))
        samples = sum(rank[2] for rank in ranks)
        loss = sum(rank[1] for rank in ranks) / samples if samples else None
        return [item for rank in ranks for item in rank[0]], loss
