"""Move batches to the training device: images that stay there, or arrays that are copied in the background."""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig

import paddle
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


class Batches:
    """A `Loader` as Paddle tensors on the current device. Paddle accepts any iterable with a length."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader, self.place = loader, current_place()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        return in_background(self.copied()) if self.place.is_gpu_place() else self.copied()

    def copied(self) -> Generator[list[paddle.Tensor], None, None]:
        """Batches on the device. Each copy is complete when it is yielded, so training never waits for one."""
        for arrays in self.loader:
            yield [paddle.to_tensor(array, place=self.place) for array in arrays]


class DeviceBatches:
    """A `Loader` whose images stay on the device as uint8 and are gathered, shifted, mirrored and normalised there.

    The batches equal the loader's own: random numbers are drawn on the host, an epoch at a time.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        planes = read_all(loader.split.images, margin(loader), loader.num_workers)
        self.pixels = paddle.to_tensor(planes)  # (N, C, H, W), with the margin
        self.targets = paddle.to_tensor(loader.split.targets)
        self.scale, self.shift = (paddle.to_tensor(values) for values in normalisation(loader))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        plan, size = plan_epoch(self.loader), self.loader.batch_size
        parts = [paddle.to_tensor(part) for part in (plan.samples, plan.rows, plan.columns) if part is not None]
        for start in range(0, len(plan.samples), size):
            chosen, *places = (part[start : start + size] for part in parts)
            # Paddle gathers single pixels on a GPU as float32, not as uint8
            images = paddle.gather(self.pixels, chosen).astype("float32")
            moved = self.move(images, *places) if places else images
            yield [moved * self.scale + self.shift, paddle.gather(self.targets, chosen)]

    def move(self, images: paddle.Tensor, rows: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
        """Gather pixels of float32 (B, C, H, W) by rows (B, h) and columns (B, w): (B, C, h, w)."""
        batch, channels, _, width = images.shape
        places = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).reshape([batch, 1, -1])
        places = places.expand([batch, channels, places.shape[2]])
        picked = paddle.take_along_axis(images.flatten(2), places, 2, broadcast=False)
        return picked.reshape([batch, channels, rows.shape[1], columns.shape[1]])


def current_place() -> Any:
    """The device set by `paddle.set_device`."""
    device = paddle.get_device()  # "cpu" or "gpu:0"
    return paddle.CUDAPlace(int(device.split(":")[1])) if device.startswith("gpu") else paddle.CPUPlace()


def build_batches(loader: BatchLoader, cache: str) -> Batches | DeviceBatches:
    """Batches for `Model.fit`; `cache` is the result of `choose_cache`."""
    if cache != "device":
        return Batches(loader)
    assert isinstance(loader, Loader), "only images stay on the device"
    return DeviceBatches(loader)


def choose_image_cache(cfg: DictConfig, splits: Sequence[Split]) -> str:
    """`choose_cache` for this process; all ranks run on this machine."""
    free_device = 0
    if current_place().is_gpu_place():  # Paddle can't report what other programs use
        free_device = paddle.device.cuda.get_device_properties().total_memory - paddle.device.cuda.memory_reserved()
    return choose_cache(cfg, splits, free_ram(SystemProbe()) // paddle.distributed.get_world_size(), free_device)
