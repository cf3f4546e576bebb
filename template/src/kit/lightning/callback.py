"""How a training run follows `pl.Trainer`: a callback and a logger."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from src.kit.lightning.networks import weights_to_numpy
from src.kit.run import Run
from src.kit.training import Collector, Experiment, TrainingLoop
from src.kit.weights import save_weights


class RunCallback(pl.Callback):
    """Sets the learning rate, seeds, logs, evaluates and saves for one training run, in whatever `pl.Trainer`."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        self.experiment, self.run = experiment, run
        self.loop: TrainingLoop
        self.restored: Mapping[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run.path = Path(trainer.strategy.broadcast(str(self.run.path)))  # ranks agree on rank 0's folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches = int(trainer.num_training_batches)
        self.loop = TrainingLoop(self.experiment, self.run, batches, lambda losses: torch.stack(list(losses)).tolist())
        if self.restored:
            self.loop.load_state_dict(self.restored)
        if self.loop.batch:  # Lightning starts no epoch when it continues in the middle of one
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(self.loop.draw_seed())
        trainer.train_dataloader.loader.set_epoch(self.loop.epoch, self.loop.batch)
        self.loop.start_epoch()
        trainer.accumulate_grad_batches = self.loop.accumulate

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        lr = self.loop.next_lr()
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning has divided the loss by the number of accumulated batches
        self.loop.step(outputs["loss"] if self.loop.accumulate == 1 else outputs["loss"] * self.loop.accumulate)
        if self.loop.save_within_epoch(partial(self.save, trainer, pl_module)):
            torch.manual_seed(self.loop.draw_seed())

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.collector = Collector(self.experiment.task, to_numpy)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.collector.add(outputs["outputs"], batch[1:], outputs["loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        collected, loss = self.collector.result(partial(gather, world_size=trainer.world_size))
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stop = self.loop.end_epoch(collected, loss, partial(self.save, trainer, pl_module), logged)
        trainer.should_stop = trainer.should_stop or stop

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, folder: Path) -> None:
        """Write the weights in the neutral format, and Lightning's own checkpoint next to them."""
        if trainer.is_global_zero:
            arrays = weights_to_numpy(pl_module.network)
            save_weights(folder / "model.safetensors", arrays, self.experiment.metadata())
        trainer.save_checkpoint(folder / "training.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return self.loop.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


class RunLogger(Logger):
    """Sends what `self.log` records within an epoch to the run's tracker; the callback logs whole epochs."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder has the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values and self.run.main:
            self.run.tracker.log(values, int(step or 0))


def gather(mine: Any, world_size: int) -> list[Any]:
    """The objects of all ranks, in their order."""
    every: list[Any] = [mine] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(every, mine)
    return every


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Fetch a tensor; bfloat16 and float16 become float32."""
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array


def concatenate_losses(losses: Sequence[torch.Tensor]) -> list[float]:
    """Fetch scalar tensors at once."""
    values: list[float] = torch.stack(list(losses)).tolist()
    return values
