"""Batches on the training device: images that stay there, or arrays pinned and copied in the background."""

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch.profiler import profile, schedule, supported_activities

from src.kit.hardware import SystemProbe, free_ram
from src.kit.loading import (
    BatchLoader,
    Loader,
    Split,
    choose_cache,
    in_background,
    margin,
    normalisation,
    plan_epoch,
    read_all,
)
from src.kit.ranks import find_place
from src.kit.run import Run
from src.kit.storage import write_text
from src.kit.weights import download_published

PROFILED = 20  # steps
HALF_PRECISION = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # trainer.precision -> autocast's


class Profile(pl.Callback):
    """Writes profile.txt, the time of each operation in the training steps 3 to 22, into the run folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler tells when it starts and stops
        times = schedule(wait=1, warmup=1, active=PROFILED, repeat=1)
        self.profiler = profile(activities=supported_activities(), schedule=times, on_trace_ready=self.write)

    def write(self, profiler: Any) -> None:
        """Write the operations in the order of their own time."""
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        if self.run.main:
            path = self.run.path / "profile.txt"
            write_text(path, profiler.key_averages().table(sort_by=key, row_limit=40))
            self.run.log.info("profile: %s", path)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.profiler.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.profiler.step()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.profiler.stop()


class EpochSampler:
    """What Lightning calls before each epoch. A run that continues within an epoch has set the loader's already."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Begin epoch `epoch`, unless the loader is in it."""
        if epoch != self.loader.epoch:
            self.loader.set_epoch(epoch)


class Batches:
    """A `Loader` as torch tensors. Lightning accepts any iterable with a length and moves the tensors itself."""

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.sampler, self.batch_sampler = EpochSampler(loader), None

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        return in_background(self.pinned()) if self.device.type == "cuda" else self.plain()

    def plain(self) -> Generator[list[torch.Tensor], None, None]:
        """Batches in pageable memory. A generator, because Lightning calls `iter` before it sets the epoch."""
        for arrays in self.loader:
            yield to_tensors(arrays)

    def pinned(self) -> Generator[list[torch.Tensor], None, None]:
        """Batches in pinned memory, so that Lightning's copy to the GPU is asynchronous."""
        torch.cuda.set_device(self.device)  # for this thread, or it creates a context on another GPU
        for arrays in self.loader:
            yield [tensor.pin_memory() for tensor in to_tensors(arrays)]


class DeviceBatches:
    """A `Loader` whose images stay on the device as uint8 and are gathered, shifted, mirrored and normalised there.

    The batches equal the loader's own: random numbers are drawn on the host, an epoch at a time.
    """

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.sampler, self.batch_sampler = EpochSampler(loader), None
        planes = read_all(loader.split.images, margin(loader), loader.threads, loader.border)
        self.pixels = torch.from_numpy(planes).to(device)  # (N, C, H, W), with the margin
        self.targets = torch.from_numpy(loader.split.targets).to(device)
        self.scale, self.shift = (torch.from_numpy(values).to(device) for values in normalisation(loader))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        plan, size = plan_epoch(self.loader), self.loader.batch_size
        samples = torch.from_numpy(plan.samples).to(self.device).split(size)
        if plan.rows is None or plan.columns is None:
            for chosen in samples:
                yield [self.normalise(self.pixels[chosen]), self.targets[chosen]]
            return
        rows, columns = (torch.from_numpy(part).to(self.device).split(size) for part in (plan.rows, plan.columns))
        for chosen, down, across in zip(samples, rows, columns, strict=True):
            yield [self.normalise(self.move(self.pixels[chosen], down, across)), self.targets[chosen]]

    def move(self, images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Gather pixels of uint8 (B, C, H, W) by rows (B, h) and columns (B, w): (B, C, h, w)."""
        places = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)  # (B, h * w)
        picked = images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1))
        return picked.view(len(images), images.shape[1], rows.shape[1], columns.shape[1])

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 -> float32 (B, C, H, W)."""
        return images.float().mul_(self.scale).add_(self.shift)


def to_tensors(arrays: tuple[np.ndarray, ...]) -> list[torch.Tensor]:
    """Wrap the arrays as tensors that share their memory."""
    return [torch.from_numpy(array) for array in arrays]


def build_batches(loader: BatchLoader, cache: str, device: torch.device) -> Batches | DeviceBatches:
    """Batches for `trainer.fit`; `cache` is the result of `choose_cache`."""
    if cache != "device":
        return Batches(loader, device)
    assert isinstance(loader, Loader), "only images stay on the device"
    return DeviceBatches(loader, device)


def choose_image_cache(cfg: DictConfig, splits: Sequence[Split], device: torch.device, devices: int) -> str:
    """`choose_cache` for one of the processes on this machine: a launcher's, or one for each of the `devices`."""
    place = find_place()
    ranks = place.local_ranks if place else devices
    free_device = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    return choose_cache(cfg, splits, free_ram(SystemProbe()) // ranks, free_device)


def batch_weight(trainer: pl.Trainer, batch_idx: int) -> float:
    """The factor of a training batch's loss, 1 unless ranks have batches of unequal size; see `Loader.weight`."""
    loader = getattr(trainer.train_dataloader, "loader", None)
    return loader.weight(batch_idx) if loader else 1.0


def weighted(loss: torch.Tensor, trainer: pl.Trainer, batch_idx: int) -> torch.Tensor:
    """A training batch's loss times its weight; without a kernel in the usual case, where that is 1."""
    weight = batch_weight(trainer, batch_idx)
    return loss if weight == 1 else loss * weight


def download_state(url: str) -> dict[str, torch.Tensor]:
    """Fetch weights into torch's cache, compare them with the digest in their name, and read them without unpickling.

    Raises:
        UserError: they cannot be downloaded.
    """
    weights: dict[str, torch.Tensor] = torch.load(download_published(url), map_location="cpu", weights_only=True)
    return weights
