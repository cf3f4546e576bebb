"""Training with PaddlePaddle's high-level API: an ordinary `paddle.Model`, and the call that fits it."""

from functools import partial
from pathlib import Path
from typing import Any

import paddle
from omegaconf import OmegaConf

from src.kit.paddle import (
    Profile,
    RunCallback,
    autocast,
    backward,
    build_distillation,
    build_optimizer,
    connect_ranks,
    load_batches,
    open_process,
    readable_errors,
    refuse_unsupported,
    run_on_devices,
    to_numpy,
)
from src.kit.run import Run
from src.kit.training import Collector, Experiment, TrainingLoop, frozen_layers, load_callbacks


class Model(paddle.Model):
    """`paddle.Model` whose `train_batch` leaves the loss on the device: the original fetches it every step."""

    def __init__(self, experiment: Experiment, network: paddle.nn.Layer, loop: TrainingLoop | None = None) -> None:
        """`loop` counts and sets the learning rate in a run; without it, `fit` behaves as Paddle's own."""
        super().__init__(network, [paddle.static.InputSpec([None, None, None, None], "float32", "images")])
        cfg = experiment.cfg
        self.loop, self.loss = loop, experiment.build_loss()
        self.has_validation_loss = experiment.task.has_validation_loss
        self.frozen = frozen_layers(network)
        self.takes_targets = getattr(network, "takes_targets", False)
        rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
        self.optimizer = build_optimizer(cfg, network, rank, ranks)
        self.parallel = connect_ranks(network, self.optimizer, ranks)
        self.scaler = paddle.amp.GradScaler(enable=cfg.trainer.precision == "16-mixed", init_loss_scaling=65536.0)
        self.precision = str(cfg.trainer.precision)
        self.collector = Collector(experiment.task, to_numpy)
        self.logged: dict[str, float] = {}
        self.distill = build_distillation(experiment)
        self.prepare(self.optimizer)

    def train_batch(self, inputs: list[Any], labels: list[Any] | None = None, update: bool = True) -> list[Any]:
        """One forward and backward pass; gradients become a step when the loop says so, or else at `update`."""
        targets = labels or []
        self.parallel.train()
        for layer in self.frozen:
            layer.eval()
        # networks that compute their own loss also receive the targets
        arguments = [inputs[0], *targets] if self.takes_targets else inputs[:1]
        with autocast(self.precision):
            outputs = self.parallel(*arguments)
        loss = self.loss(outputs, *targets)
        loss = self.distill(inputs[0], outputs, loss) if self.distill else loss
        if self.loop:
            self.loop.check_loss(loss.detach(), partial(self.network, *arguments))
        # a step's gradient is the mean over its batches, and over ranks of unequal batches
        scale = self.loop.loader.weight(self.loop.batch) / self.loop.accumulate if self.loop else 1.0
        backward(self.scaler.scale(loss if scale == 1 else loss * scale), self.optimizer)
        if self.loop.updates() if self.loop else update:
            if self.loop:
                self.scaler.unscale_(self.optimizer)
                self.loop.before_update()
                self.optimizer.set_lr(self.loop.lr)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.clear_grad()
        self.last_loss = loss.detach()
        return []

    def eval_batch(self, inputs: list[Any], labels: list[Any] | None = None) -> list[Any]:
        """Collect the predictions; the metrics come from all of them at once."""
        targets = labels or []
        self.network.eval()
        with paddle.no_grad(), autocast(self.precision):
            outputs = self.network(inputs[0])
        with paddle.no_grad():
            loss = self.loss(outputs, *targets) if self.has_validation_loss else None
        self.collector.add(outputs, targets, loss)
        return []

    def log(self, name: str, value: float) -> None:
        """Log a value of this epoch to metrics.csv, the tracker and the report, from your own callback."""
        self.logged[name] = float(value)


def fit(experiment: Experiment, run: Run, checkpoint: Path | None = None) -> None:
    """Train until `trainer.max_epochs` or an early stop; checkpoints and metrics go into the run folder.

    `checkpoint` is a checkpoint folder to continue from. Several devices are several processes, started here unless
    `python -m paddle.distributed.launch` has started them already.

    Raises:
        UserError: what Paddle or the machine cannot do, a loss that is not finite, memory that is full.
    """
    refuse_unsupported(experiment.cfg)
    if not run_on_devices(fit_rank, experiment.cfg, run.path, checkpoint):
        fit_process(experiment, run, checkpoint)


def fit_rank(plain: dict[str, Any], path: Path, checkpoint: Path | None) -> None:
    """Train as one of several processes that `fit` started."""
    cfg: Any = OmegaConf.create(plain)
    with Run(cfg, path) as run:
        fit_process(Experiment(cfg), run, checkpoint)


def fit_process(experiment: Experiment, run: Run, checkpoint: Path | None) -> None:
    """Train in this process, which is the only one or one rank of several."""
    cfg = experiment.cfg
    # optimizer state is stored under names that count what the process has made so far
    with open_process(cfg, run), paddle.utils.unique_name.guard():
        train, val = load_batches(experiment)
        paddle.seed(cfg.seed)
        network = experiment.build_network(checkpoint=checkpoint)
        loop = TrainingLoop(experiment, run, train.loader, lambda losses: paddle.stack(list(losses)).tolist())
        callback = RunCallback(experiment, model := Model(experiment, network, loop), loop, train)
        if checkpoint:
            callback.load_checkpoint(checkpoint)
        if loop.epoch >= cfg.trainer.max_epochs:  # it was cut off after its last epoch
            return
        extra: Any = OmegaConf.to_container(cfg.trainer.extra, resolve=True)
        options = {"epochs": cfg.trainer.max_epochs - loop.epoch, "verbose": 0} | extra
        with readable_errors(cfg):
            profile = [Profile(run)] if cfg.trainer.profiler else []
            model.fit(train, val, callbacks=[*load_callbacks(cfg), *profile, callback], **options)
