"""The Lightning module: network, loss and optimizer; everything else is the session's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from src import tasks
from src.datasets.base import Split
from src.datasets.loader import Loader
from src.models import weights
from src.models.lightning import state
from src.trainers.builders import build_loader, describe_network
from src.trainers.session import Session


class Batches:
    """A `Loader` as torch tensors; Lightning takes any iterable with a length."""

    def __init__(self, loader: Loader) -> None:
        self.loader, self.pin = loader, torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for arrays in self.loader:
            tensors = [torch.from_numpy(array) for array in arrays]
            yield [tensor.pin_memory() for tensor in tensors] if self.pin else tensors


class Module(pl.LightningModule):
    """The network, its loss and its optimizer; everything else is the session's."""

    def __init__(self, cfg: DictConfig, network: torch.nn.Module, train: Split, val: Split) -> None:
        super().__init__()
        self.cfg, self.network, self.train_split, self.val_split = cfg, network, train, val
        self.loss = tasks.load_loss(cfg)
        self.session: Session

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook dozens of times a step, and torch searches its registries each time
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def train_dataloader(self) -> Batches:
        return Batches(
            build_loader(self.cfg, self.train_split, "train", self.trainer.global_rank, self.trainer.world_size)
        )

    def val_dataloader(self) -> Batches:
        return Batches(build_loader(self.cfg, self.val_split, "val", self.trainer.global_rank, self.trainer.world_size))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.cfg, self.network)

    def on_train_epoch_start(self) -> None:
        # each epoch draws its own random numbers from the seed: a resumed run needs no generator state
        torch.manual_seed(self.cfg.seed + self.current_epoch + 1)
        self.trainer.train_dataloader.loader.set_epoch(self.current_epoch)
        self.session.start_epoch()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        lr = self.session.next_lr()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr
        images, targets = batch
        loss = self.loss(self.network(images), targets)
        self.session.step(loss.detach(), batch_idx)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        images, targets = batch
        self.outputs.append((self.network(images), targets))

    def on_train_epoch_end(self) -> None:
        outputs, targets = (torch.cat(tensors) for tensors in zip(*self.outputs, strict=True))
        gathered = gather(outputs.float().cpu(), targets.cpu(), self.trainer.world_size)
        loss = self.loss(*gathered).item()
        self.trainer.should_stop = self.session.end_epoch(gathered[0].numpy(), gathered[1].numpy(), loss, self.save)

    def save(self, folder: Path) -> None:
        if self.trainer.is_global_zero:
            weights.save(
                folder / "model.safetensors", state.to_numpy(self.network), describe_network(self.cfg, self.train_split)
            )
        self.trainer.save_checkpoint(folder / "training.ckpt")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["session"] = self.session.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.session.load_state_dict(checkpoint["session"])


def gather(outputs: torch.Tensor, targets: torch.Tensor, world_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenate the predictions of all ranks, whose shares of the split may differ by one batch."""
    if world_size == 1:
        return outputs, targets
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, (outputs, targets))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def build_optimizer(cfg: DictConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) or SGD with momentum; fused where possible."""
    rule = cfg.optimizer
    # a fused step unscales fp16 gradients by itself, after Lightning would have had to clip them
    common = {"lr": rule.lr, "weight_decay": rule.weight_decay, "fused": cfg.trainer.precision != "16-mixed"}
    if rule.name == "adamw":
        return torch.optim.AdamW(network.parameters(), betas=tuple(rule.betas), **common)
    return torch.optim.SGD(network.parameters(), momentum=rule.momentum, nesterov=rule.nesterov, **common)
