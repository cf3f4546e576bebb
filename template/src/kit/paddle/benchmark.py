"""What the benchmarks need of Paddle: the plain pipeline, a bare training step, its operations, and peak memory."""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

import paddle
from paddle.io import DataLoader, Dataset
from src.kit.benchmarks import Pillow
from src.kit.loading import Split, keep_decoded
from src.kit.paddle.device import Batches, DeviceBatches, build_batches, choose
from src.kit.paddle.devices import use_gpu
from src.kit.paddle.flops import count_flops
from src.kit.paddle.optimizer import build_optimizer
from src.kit.training import build_loader, build_loss, build_network

KINDS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}


class PillowDataset(Pillow, Dataset):  # type: ignore[misc]
    """Paddle's DataLoader takes nothing but its own base class."""


def plain_loader(cfg: DictConfig, split: Split, workers: int) -> DataLoader:
    """Pillow, Paddle's transforms and a DataLoader with worker processes, as tutorials write it."""
    from paddle.vision import transforms

    size = split.images.shape[0]
    # arrays and not tensors: Paddle's operators may crash in a process that was forked
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.Transpose()]
    constants = ([255 * value for value in OmegaConf.to_object(cfg.data[key])] for key in ("mean", "std"))
    steps.append(transforms.Normalize(*constants))
    return DataLoader(
        PillowDataset(split, transforms.Compose(steps)),
        batch_size=cfg.data.batch_size,
        shuffle=True,
        num_workers=workers,
    )


class Trainer:
    """Forward pass, backward pass and optimizer, without `paddle.Model`."""

    def __init__(self, cfg: DictConfig, split: Split) -> None:
        paddle.set_device("gpu" if use_gpu(cfg) else "cpu")
        self.cfg, self.split = cfg, split
        self.network = build_network(cfg, split)
        self.network.train()
        self.loss = build_loss(cfg, split.class_counts())
        self.optimizer = build_optimizer(cfg, self.network)
        self.amp = KINDS.get(cfg.trainer.precision)
        self.takes_targets = getattr(self.network, "takes_targets", False)

    def step(self, batch: list[paddle.Tensor]) -> None:
        """Train on one batch; on a GPU it returns before the work is done."""
        images, *arrays = batch
        with paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            outputs = self.network(images, *arrays) if self.takes_targets else self.network(images)
        self.loss(outputs, *arrays).backward()
        self.optimizer.step()
        self.optimizer.clear_grad()

    def wait(self) -> None:
        """Until the GPU has done all."""
        wait(self.cfg)

    def flops(self) -> int | None:
        """Floating-point operations of one step as `count_flops` says; None for networks that are given targets."""
        if self.takes_targets:  # what they compute depends on the values
            return None
        return count_flops(self.cfg, self.split, self.synthetic()[0].shape)

    def synthetic(self) -> list[paddle.Tensor]:
        """A batch that stays on the device: noise, or for other tasks than classification the first one."""
        if self.cfg.task != "classification":
            first: list[paddle.Tensor] = next(iter(self.real()))
            return first
        height, width, channels = self.split.images.shape
        count = min(self.cfg.data.batch_size, len(self.split))
        return [paddle.randn([count, channels, height, width]), paddle.randint(0, len(self.split.classes), [count])]

    def real(self) -> Batches | DeviceBatches:
        """The batches of the training, kept where `data.cache` says."""
        cache = choose(self.cfg, (self.split,))
        return build_batches(build_loader(self.cfg, keep_decoded(self.split, cache), "train"), cache)


def multiplication(cfg: DictConfig) -> Callable[[], int]:
    """A matrix product in the training's number format that occupies the device; it returns its operations."""
    side = 8192 if use_gpu(cfg) else 1024
    factor = paddle.randn([side, side]).astype(KINDS.get(cfg.trainer.precision, "float32"))

    def multiply() -> int:
        paddle.matmul(factor, factor)
        return int(2 * side**3)

    return multiply


def wait(cfg: DictConfig) -> None:
    """Until the GPU has done all."""
    if use_gpu(cfg):
        paddle.device.synchronize()


def gpu_name(cfg: DictConfig) -> str:
    """The GPU that the configuration trains on, "" where that is the CPU."""
    return str(paddle.device.cuda.get_device_name()) if use_gpu(cfg) else ""


def forget_memory(cfg: DictConfig) -> None:
    """Give the GPU's unused memory back and measure its peak anew."""
    if use_gpu(cfg):
        paddle.device.cuda.empty_cache()
        paddle.device.cuda.reset_max_memory_allocated()
        paddle.device.cuda.reset_max_memory_reserved()


def peak_memory(cfg: DictConfig) -> dict[str, int]:
    """MiB of the GPU at most: what tensors took, and what the allocator kept for them; empty on a CPU."""
    if not use_gpu(cfg):
        return {}
    return {
        "allocated_mib": paddle.device.cuda.max_memory_allocated() >> 20,
        "reserved_mib": paddle.device.cuda.max_memory_reserved() >> 20,
    }
