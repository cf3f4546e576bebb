"""What scripts/benchmark_data.py needs of PyTorch: the plain pipeline and a bare training step."""

from contextlib import nullcontext
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from src import tasks
from src.datasets.base import Split
from src.datasets.loading.cache import keep_decoded
from src.trainers.builders import build_loader, build_network
from src.trainers.lightning import use_gpu
from src.trainers.lightning_device import Batches, DeviceBatches, build_batches, choose
from src.trainers.lightning_optimizer import build_optimizer
from src.utils.data_benchmark import Pillow


def plain_loader(cfg: DictConfig, split: Split, workers: int) -> DataLoader:
    """Pillow, torchvision and a DataLoader with worker processes, as tutorials write it."""
    from torchvision import transforms

    size = split.images.shape[0]
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    steps.append(transforms.Normalize(OmegaConf.to_object(cfg.data.mean), OmegaConf.to_object(cfg.data.std)))
    dataset: Any = Pillow(split, transforms.Compose(steps))
    return DataLoader(
        dataset,
        cfg.data.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class Trainer:
    """Forward pass, backward pass and optimizer, without Lightning's loop."""

    def __init__(self, cfg: DictConfig, split: Split) -> None:
        self.cfg, self.split = cfg, split
        self.device = torch.device("cuda" if use_gpu(cfg) else "cpu")
        self.network = build_network(cfg, split).to(self.device).train()
        self.loss = cast(Any, tasks.load_loss(cfg, split.class_counts())).to(self.device)
        self.optimizer = build_optimizer(cfg, self.network)
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        self.kind = kinds.get(cfg.trainer.precision)

    def step(self, batch: list[torch.Tensor]) -> None:
        """Train on one batch; on a GPU it returns before the work is done."""
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        with torch.autocast(self.device.type, self.kind) if self.kind else nullcontext():
            loss = self.loss(self.network(images), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def wait(self) -> None:
        """Until the GPU has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def synthetic(self) -> list[torch.Tensor]:
        """A batch of noise on the device: data that cost nothing."""
        height, width, channels = self.split.images.shape
        count = min(self.cfg.data.batch_size, len(self.split))
        images = torch.randn(count, channels, height, width, device=self.device)
        return [images, torch.randint(len(self.split.classes), (count,), device=self.device)]

    def real(self) -> Batches | DeviceBatches:
        """The batches of the training, kept where `data.cache` says."""
        cache = choose(self.cfg, (self.split,), self.device, 1)
        loader = build_loader(self.cfg, keep_decoded(self.split, cache), "train")
        return build_batches(loader, cache, self.device)
