"""The Lightning module: network, loss and optimizer; everything else is the session's."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from src.kit.lightning import Batches, DeviceBatches, build_batches, build_optimizer, weights_to_numpy
from src.kit.training import Collector, Session, build_loader, build_loss, describe_network, tasks
from src.kit.weights import save_weights


class Module(pl.LightningModule):
    """The network, its loss and its optimizer; everything else is the session's."""

    def __init__(self, cfg: DictConfig, network: torch.nn.Module, train: Any, val: Any, cache: str = "none") -> None:
        super().__init__()
        self.cfg, self.network, self.train_split, self.val_split, self.cache = cfg, network, train, val, cache
        self.task, self.loss = tasks.load(cfg.task), build_loss(cfg, train.class_counts())
        self.takes_targets = getattr(network, "takes_targets", False)
        self.session: Session

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook dozens of times a step, and torch searches its registries each time
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def train_dataloader(self) -> Batches | DeviceBatches:
        return self.batches(self.train_split, "train")

    def val_dataloader(self) -> Batches | DeviceBatches:
        return self.batches(self.val_split, "val")

    def batches(self, split: Any, kind: str) -> Batches | DeviceBatches:
        loader = build_loader(self.cfg, split, kind, self.trainer.global_rank, self.trainer.world_size)
        return build_batches(loader, self.cache, self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.cfg, self.network)

    def on_train_start(self) -> None:
        if self.session.batch:  # Lightning does not begin an epoch in whose middle it goes on
            self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.session.draw_seed())
        self.trainer.train_dataloader.loader.set_epoch(self.session.epoch, self.session.batch)
        self.session.start_epoch()
        self.trainer.accumulate_grad_batches = self.session.accumulate

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        lr = self.session.next_lr()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr
        images, *arrays = batch
        # a network whose losses are its own is given what it shall find
        outputs = self.network(images, *arrays) if self.takes_targets else self.network(images)
        loss = self.loss(outputs, *arrays)
        self.session.step(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: list[torch.Tensor], batch_idx: int) -> None:
        if self.session.save_within_epoch(self.save):
            torch.manual_seed(self.session.draw_seed())

    def on_validation_epoch_start(self) -> None:
        self.collector = Collector(self.task, to_numpy)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        images, *arrays = batch
        outputs = self.network(images)
        self.collector.add(outputs, arrays, self.loss(outputs, *arrays) if self.task.VALIDATION_LOSS else None)

    def on_train_epoch_end(self) -> None:
        kept, loss = self.collector.result(partial(gather, world_size=self.trainer.world_size))
        self.trainer.should_stop = self.session.end_epoch(kept, self.task.classes(self.train_split), loss, self.save)

    def save(self, folder: Path) -> None:
        if self.trainer.is_global_zero:
            save_weights(
                folder / "model.safetensors",
                weights_to_numpy(self.network),
                describe_network(self.cfg, self.train_split),
            )
        self.trainer.save_checkpoint(folder / "training.ckpt")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["session"] = self.session.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.session.load_state_dict(checkpoint["session"])


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
