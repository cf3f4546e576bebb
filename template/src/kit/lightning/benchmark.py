"""PyTorch's half of the benchmarks: the plain pipeline, a bare training step, its operations, and peak memory."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from src.kit.benchmarks import PillowSamples
from src.kit.lightning.device import HALF_PRECISION, Batches, DeviceBatches, build_batches, choose_image_cache
from src.kit.lightning.recipes import compile_network
from src.kit.lightning.trainer import build_optimizer, use_gpu
from src.kit.loading import Split, keep_decoded, largest_batch
from src.kit.training import Experiment


def plain_loader(cfg: DictConfig, split: Split, workers: int) -> DataLoader:
    """Pillow, torchvision and a DataLoader with worker processes, as in tutorials."""
    from torchvision import transforms

    size = split.images.shape[0]
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()]
    steps.append(transforms.Normalize(OmegaConf.to_object(cfg.data.mean), OmegaConf.to_object(cfg.data.std)))
    dataset: Any = PillowSamples(split, transforms.Compose(steps))
    return DataLoader(
        dataset,
        largest_batch(cfg),
        shuffle=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class Trainer:
    """Forward pass, backward pass and optimizer, without Lightning's loop."""

    def __init__(self, cfg: DictConfig, split: Split) -> None:
        self.cfg, self.split = cfg, split
        self.device = torch.device("cuda" if use_gpu(cfg) else "cpu")
        self.experiment = Experiment(cfg, {"train": split})
        self.network = self.experiment.build_network().to(self.device).train()
        if cfg.trainer.compile:
            compile_network(cfg, self.network)
        self.loss = self.experiment.build_loss()
        if isinstance(self.loss, torch.nn.Module):
            self.loss.to(self.device)
        self.optimizer = build_optimizer(cfg, self.network)
        self.half = HALF_PRECISION.get(cfg.trainer.precision)
        self.takes_targets = getattr(self.network, "takes_targets", False)

    def step(self, batch: list[torch.Tensor]) -> None:
        """Train on one batch; on a GPU it returns before the work is done."""
        images, *arrays = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        with torch.autocast(self.device.type, self.half) if self.half else nullcontext():
            outputs = self.network(images, *arrays) if self.takes_targets else self.network(images)
            loss = self.loss(outputs, *arrays)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def wait(self) -> None:
        """Block until the GPU is idle."""
        wait(self.cfg)

    def flops(self) -> int:
        """Floating-point operations of one step's matrix products and convolutions, forward and backward.

        A multiply-add counts as two, as in Paddle's half. PyTorch's own formula for the backward pass of a convolution
        ignores its groups, which inflates EfficientNet-B0 14 times.
        """
        formulas = {torch.ops.aten.convolution_backward: convolution_backward}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            self.step(self.synthetic())
        return counter.get_total_flops()

    def synthetic(self) -> list[torch.Tensor]:
        """A batch that stays on the device: noise, or the first batch for tasks other than classification."""
        if self.cfg.task != "classification":
            return [tensor.to(self.device) for tensor in next(iter(self.real()))]
        height, width, channels = self.split.images.shape
        count = min(largest_batch(self.cfg), len(self.split))
        images = torch.randn(count, channels, height, width, device=self.device)
        return [images, torch.randint(len(self.split.classes), (count,), device=self.device)]

    def real(self) -> Batches | DeviceBatches:
        """The training's batches, cached where `data.cache` says."""
        cache = choose_image_cache(self.cfg, (self.split,), self.device, 1)
        loader = self.experiment.build_loader("train", dataset=keep_decoded(self.split, cache))
        return build_batches(loader, cache, self.device)


def convolution_backward(
    gradient: list[int], inputs: list[int], weights: list[int], *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    """Each computed gradient, of the inputs and of the weights, costs as much as the forward pass."""
    *_, transposed, _, _, wanted = rest
    return sum(wanted[:2]) * conv_flop_count(inputs, weights, gradient, transposed=transposed)


def multiplication(cfg: DictConfig) -> Callable[[], int]:
    """A matrix product in the training's number format that keeps the device busy; it returns its operations."""
    side, device = (8192, "cuda") if use_gpu(cfg) else (1024, "cpu")
    factor = torch.randn(side, side, device=device, dtype=HALF_PRECISION.get(cfg.trainer.precision, torch.float32))

    def multiply() -> int:
        torch.mm(factor, factor)
        return int(2 * side**3)

    return multiply


def wait(cfg: DictConfig) -> None:
    """Block until the GPU is idle."""
    if use_gpu(cfg):
        torch.cuda.synchronize()


def gpu_name(cfg: DictConfig) -> str:
    """Name of the GPU that the configuration trains on, "" for the CPU."""
    return torch.cuda.get_device_name() if use_gpu(cfg) else ""


def reset_peak_memory(cfg: DictConfig) -> None:
    """Release the GPU's unused memory and start a new measurement of its peak."""
    if use_gpu(cfg):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(cfg: DictConfig) -> dict[str, int]:
    """Peak MiB of the GPU: allocated by tensors, and reserved by the allocator; empty on a CPU."""
    if not use_gpu(cfg):
        return {}
    return {
        "allocated_mib": torch.cuda.max_memory_allocated() >> 20,
        "reserved_mib": torch.cuda.max_memory_reserved() >> 20,
    }
