"""Training with PyTorch Lightning: an ordinary LightningModule, its data, and the call that fits it.

experiment = Experiment(load_config(["model=small_cnn", "data=digits"]))
pl.Trainer(max_epochs=1).fit(build_module(experiment), DataModule(experiment))     # in a notebook, say
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from src.kit.config import shown_config
from src.kit.lightning import (
    Batches,
    DeviceBatches,
    LeanModule,
    Profile,
    RunCallback,
    RunLogger,
    build_batches,
    build_distillation,
    build_optimizer,
    build_scheduler,
    build_trainer,
    choose_image_cache,
    readable_errors,
    weighted,
)
from src.kit.loading import keep_decoded
from src.kit.run import Run
from src.kit.training import Experiment, build_loss, build_network, load_callbacks, load_task


class Module(LeanModule):
    """The network, its loss and its optimizer; `RunCallback` follows a run, so nothing here has to."""

    def __init__(
        self,
        config: Mapping[str, Any],
        classes: tuple[str, ...],
        input_shape: tuple[int, int, int],
        network_arguments: Mapping[str, Any],
        class_counts: list[int] | None = None,
        network: torch.nn.Module | None = None,
        distill: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        """Build the network and the loss that `config` names.

        Args:
            config: a run's configuration as plain mappings, so that `load_from_checkpoint` can rebuild everything.
            classes: names of the network's outputs.
            input_shape: height, width and channels of the images.
            network_arguments: further arguments of the network's `build`.
            class_counts: training samples of each class, for losses that weight classes.
            network: the network, if it has been built (and started from given weights) already.
            distill: adds a teacher's part to the loss: (images, outputs, loss) -> loss.
        """
        super().__init__()
        self.save_hyperparameters(ignore=["network", "distill"])
        self.config, self.distill = OmegaConf.create(dict(config)), distill
        self.network = network or build_network(self.config, classes, input_shape, dict(network_arguments), False)
        self.loss = build_loss(self.config, None if class_counts is None else torch.tensor(class_counts).numpy())
        self.takes_targets = getattr(self.network, "takes_targets", False)
        self.has_validation_loss = load_task(self.config.task).has_validation_loss

    def forward(self, images: torch.Tensor) -> Any:
        """float32 (B, C, H, W) -> the task's outputs, such as logits (B, K)."""
        return self.network(images)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, *targets = batch
        # networks that compute their own loss also receive the targets
        outputs = self.network(images, *targets) if self.takes_targets else self.network(images)
        loss: torch.Tensor = self.loss(outputs, *targets)
        return weighted(self.distill(images, outputs, loss) if self.distill else loss, self.trainer, batch_idx)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        images, *targets = batch
        outputs = self.network(images)
        return {"outputs": outputs, "loss": self.loss(outputs, *targets) if self.has_validation_loss else None}

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.config, self.network)
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(callback, RunCallback) for callback in callbacks):
            return optimizer  # it sets the learning rate, also for plateaus and growing batches
        return build_scheduler(self.config, optimizer, int(self.trainer.estimated_stepping_batches))


class DataModule(pl.LightningDataModule):
    """An experiment's training and validation split as batches of tensors."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self.experiment, self.cache = experiment, "none"

    def setup(self, stage: str) -> None:
        """Choose where decoded images are kept: nowhere, in memory or on the device."""
        splits = {name: self.experiment.split(name) for name in ("train", "val")}
        place = (self.trainer.strategy.root_device, self.trainer.num_devices)
        self.cache = choose_image_cache(self.experiment.cfg, list(splits.values()), *place)
        self.splits = {name: keep_decoded(split, self.cache) for name, split in splits.items()}

    def train_dataloader(self) -> Batches | DeviceBatches:
        return self.batches("train")

    def val_dataloader(self) -> Batches | DeviceBatches:
        return self.batches("val")

    def batches(self, kind: str) -> Batches | DeviceBatches:
        """This rank's batches of a split."""
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        loader = self.experiment.build_loader(kind, rank, ranks, self.splits[kind])
        return build_batches(loader, self.cache, self.trainer.strategy.root_device)


def build_module(experiment: Experiment, checkpoint: Path | None = None) -> Module:
    """The module of an experiment, its network started from `model.pretrained`, `model.weights` or a checkpoint."""
    counts = experiment.class_counts
    return Module(
        shown_config(experiment.cfg),
        experiment.classes,
        experiment.input_shape,
        experiment.network_arguments,
        None if counts is None else [int(count) for count in counts],
        experiment.build_network(checkpoint=checkpoint),
        build_distillation(experiment),
    )


def fit(experiment: Experiment, run: Run, checkpoint: Path | None = None) -> None:
    """Train until `trainer.max_epochs` or an early stop; checkpoints and metrics go into the run folder.

    `checkpoint` is a checkpoint folder to continue from.

    Raises:
        UserError: what Lightning or the machine cannot do, a loss that is not finite, memory that is full.
    """
    cfg: DictConfig = experiment.cfg
    callbacks = [*load_callbacks(cfg), *([Profile(run)] if cfg.trainer.profiler else [])]
    callbacks.append(RunCallback(experiment, run))  # last: it logs what yours have logged
    trainer = build_trainer(cfg, callbacks, RunLogger(run))
    torch.manual_seed(cfg.seed)
    module, resumed = build_module(experiment, checkpoint), checkpoint and checkpoint / "training.ckpt"
    with readable_errors(cfg):
        trainer.fit(module, DataModule(experiment), ckpt_path=resumed, weights_only=True)
