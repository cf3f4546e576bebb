"""Paddle's half of the benchmarks: the plain pipeline, a bare training step, its operations, and peak memory."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

import paddle
from paddle.io import DataLoader, Dataset
from src.kit.benchmarks import PillowSamples
from src.kit.loading import Split, keep_decoded, largest_batch
from src.kit.paddle.devices import (
    HALF_PRECISION,
    Batches,
    DeviceBatches,
    autocast,
    build_batches,
    choose_image_cache,
    use_gpu,
)
from src.kit.paddle.optimizers import build_optimizer
from src.kit.training import Experiment

PRODUCTS = ("matmul", "bmm")


class PillowDataset(PillowSamples, Dataset):  # type: ignore[misc]
    """Paddle's DataLoader accepts only subclasses of its own `Dataset`."""


class PlainLoader(DataLoader):  # type: ignore[misc]
    """Ends its worker processes with an iteration, which Paddle leaves running when an epoch is not finished."""

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        try:
            yield from batches
        finally:
            batches._try_shutdown_all()


def plain_loader(cfg: DictConfig, split: Split, workers: int) -> DataLoader:
    """Pillow, Paddle's transforms and a DataLoader with worker processes, as in tutorials."""
    from paddle.vision import transforms

    size = split.images.shape[0]
    # arrays, not tensors: Paddle's operators may crash in a forked process
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.Transpose()]
    constants = ([255 * value for value in OmegaConf.to_object(cfg.data[key])] for key in ("mean", "std"))
    steps.append(transforms.Normalize(*constants))
    return PlainLoader(
        PillowDataset(split, transforms.Compose(steps)),
        batch_size=largest_batch(cfg),
        shuffle=True,
        num_workers=workers,
    )


class Trainer:
    """Forward pass, backward pass and optimizer, without `paddle.Model`."""

    def __init__(self, cfg: DictConfig, split: Split) -> None:
        paddle.set_device("gpu" if use_gpu(cfg) else "cpu")
        self.cfg, self.split = cfg, split
        self.experiment = Experiment(cfg, {"train": split})
        self.network = self.experiment.build_network()
        self.network.train()
        self.loss = self.experiment.build_loss()
        self.optimizer = build_optimizer(cfg, self.network)
        self.precision = str(cfg.trainer.precision)
        self.takes_targets = getattr(self.network, "takes_targets", False)

    def step(self, batch: list[paddle.Tensor]) -> None:
        """Train on one batch; on a GPU it returns before the work is done."""
        images, *arrays = batch
        with autocast(self.precision):
            outputs = self.network(images, *arrays) if self.takes_targets else self.network(images)
        self.loss(outputs, *arrays).backward()
        self.optimizer.step()
        self.optimizer.clear_grad()

    def wait(self) -> None:
        """Block until the GPU is idle."""
        wait(self.cfg)

    def flops(self) -> int | None:
        """Floating-point operations of one step, by `count_flops`; None for networks that receive the targets."""
        if self.takes_targets:  # what they compute depends on the values
            return None
        return count_flops(self.cfg, self.split, self.synthetic()[0].shape)

    def synthetic(self) -> list[paddle.Tensor]:
        """A batch that stays on the device: noise, or the first batch for tasks other than classification."""
        if self.cfg.task != "classification":
            first: list[paddle.Tensor] = next(iter(self.real()))
            return first
        height, width, channels = self.split.images.shape
        count = min(largest_batch(self.cfg), len(self.split))
        return [paddle.randn([count, channels, height, width]), paddle.randint(0, len(self.split.classes), [count])]

    def real(self) -> Batches | DeviceBatches:
        """The training's batches, cached where `data.cache` says."""
        cache = choose_image_cache(self.cfg, (self.split,))
        return build_batches(self.experiment.build_loader("train", dataset=keep_decoded(self.split, cache)), cache)


def multiplication(cfg: DictConfig) -> Callable[[], int]:
    """A matrix product in the training's number format that keeps the device busy; it returns its operations."""
    side = 8192 if use_gpu(cfg) else 1024
    factor = paddle.randn([side, side]).astype(HALF_PRECISION.get(cfg.trainer.precision, "float32"))

    def multiply() -> int:
        paddle.matmul(factor, factor)
        return int(2 * side**3)

    return multiply


def wait(cfg: DictConfig) -> None:
    """Block until the GPU is idle."""
    if use_gpu(cfg):
        paddle.device.synchronize()


def gpu_name(cfg: DictConfig) -> str:
    """Name of the GPU that the configuration trains on, "" for the CPU."""
    return str(paddle.device.cuda.get_device_name()) if use_gpu(cfg) else ""


def reset_peak_memory(cfg: DictConfig) -> None:
    """Release the GPU's unused memory and start a new measurement of its peak."""
    if use_gpu(cfg):
        paddle.device.cuda.empty_cache()
        paddle.device.cuda.reset_max_memory_allocated()
        paddle.device.cuda.reset_max_memory_reserved()


def peak_memory(cfg: DictConfig) -> dict[str, int]:
    """Peak MiB of the GPU: allocated by tensors, and reserved by the allocator; empty on a CPU."""
    if not use_gpu(cfg):
        return {}
    return {
        "allocated_mib": paddle.device.cuda.max_memory_allocated() >> 20,
        "reserved_mib": paddle.device.cuda.max_memory_reserved() >> 20,
    }


def count_flops(cfg: DictConfig, split: Any, shape: Sequence[int]) -> int:
    """Operations of matrix products and convolutions in one training step on inputs of `shape`, without computing.

    A multiply-add counts as two. The backward pass has one product for each of the two operands that needs a gradient.
    `paddle.flops` counts a multiply-add as one, the forward pass only, and layers only.
    """
    paddle.enable_static()
    try:
        program = paddle.static.Program()
        with paddle.static.program_guard(program, paddle.static.Program()):
            network = Experiment(cfg, {"train": split}).build_network(initial=False)
            network.train()
            network(paddle.static.data("images", list(shape), "float32"))
        return sum(map(operation_flops, program.global_block().ops))
    finally:
        paddle.disable_static()


def operation_flops(operation: Any) -> int:
    """Floating-point operations of one operation of Paddle's intermediate representation, with its backward pass."""
    name = operation.name().rpartition(".")[2]
    if "conv" not in name and name not in PRODUCTS:
        return 0
    (inputs, weights), output = operation.operands_source()[:2], operation.results()[0]
    if name in PRODUCTS:
        multiplied = math.prod(output.shape) * inputs.shape[-2 if operation.attrs().get("transpose_x") else -1]
    else:  # weights are (out, in / groups, ...), and of a transposed convolution (in, out / groups, ...)
        positions = inputs if name.endswith("transpose") else output
        multiplied = math.prod(positions.shape) * math.prod(weights.shape[1:])
    return int(2 * multiplied * (1 + (not inputs.stop_gradient) + (not weights.stop_gradient)))
