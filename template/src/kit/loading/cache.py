"""Keep decoded images in memory or on the device, and prepare batches ahead in threads."""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from omegaconf import DictConfig

from src.kit.augment import pad
from src.kit.config import UserError
from src.kit.hardware import SystemProbe, cores
from src.kit.loading.images import FileImages, Images, Split, own_order

T = TypeVar("T")
RAM_SHARE = 0.5  # of the free RAM; the rest is for batches, the network and other programs
DEVICE_SHARE = 0.25  # of the GPU's free memory; training needs far more than the network's weights
CHUNK = 256  # images a thread decodes at a time
LOCKED_S = 25e-6  # seconds of each image that Python's lock lets one thread work at, and handing it over takes
PROBED = 32  # images that tell how long one takes


def choose_workers(in_memory: bool) -> int:
    """Threads for `data.num_workers: null`: one per core that this process may use, none for images in memory.

    Respects CPU affinity and cgroup quotas. A batch of images in memory takes less time to prepare than to hand over
    from another thread.
    """
    return 0 if in_memory else cores(SystemProbe())


def useful_threads(images: Images, most: int) -> int:
    """So many of `most` threads as have work while one of them holds Python's lock: for small photos few or one.

    Reads some images that are in files; a slow disk counts as work. With 16 threads a photo of 32 x 32 pixels takes
    three times as long as with one.
    """
    files = images.images if isinstance(images, CachedImages) else images
    if not isinstance(files, FileImages) or most < 2 or len(files) < 2 * PROBED:
        return most
    try:
        files.get(np.arange(2))  # imports the decoder
        started = time.perf_counter()
        files.get(np.arange(2, 2 + PROBED))
    except UserError:
        return most  # whoever asks for the damaged image hears of it
    return max(1, min(most, int((time.perf_counter() - started) / PROBED / LOCKED_S)))


def prepare_ahead(prepare: Callable[[int], T], batches: int, workers: int) -> Iterator[T]:
    """Yield `prepare(0), prepare(1), ...` in order; `workers` threads work a few batches ahead."""
    pool = ThreadPoolExecutor(workers, "loader")
    try:
        waiting: deque[Future[T]] = deque()
        for number in range(batches + workers + 1):
            if number < batches:
                waiting.append(pool.submit(prepare, number))
            if number > workers:
                yield waiting.popleft().result()
    finally:  # also if the iteration is abandoned
        pool.shutdown(cancel_futures=True)


def in_background(items: Generator[T, None, None], ahead: int = 2) -> Iterator[T]:
    """Yield the generator's items, which another thread produces `ahead` items early (copies to a GPU, for example)."""
    end = object()
    pool = ThreadPoolExecutor(1, "background")
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()  # ends the generator's own threads


class CachedImages:
    """Images that are decoded on first access and served from memory afterwards."""

    in_memory = False  # threads decode in the first epoch

    def __init__(self, images: Images) -> None:
        self.images, self.shape = images, images.shape
        height, width, channels = images.shape
        self.planes = np.empty((len(images), channels, height, width), np.uint8)  # memory is allocated on first write
        self.filled = np.zeros(len(images), bool)

    def __len__(self) -> int:
        return len(self.filled)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C). Two threads that decode the same image write the same bytes."""
        missing = indices[~self.filled[indices]]
        if len(missing):
            self.planes[missing] = self.images.get(missing).transpose(0, 3, 1, 2)
            self.filled[missing] = True
        return self.planes[indices].transpose(0, 2, 3, 1)

    def take(self, indices: np.ndarray) -> "CachedImages":
        """The images at these indices, in this order, with their own cache."""
        return CachedImages(self.images.take(indices))


def choose_cache(cfg: DictConfig, splits: Sequence[Any], free_ram: int, free_device: int = 0) -> str:
    """Choose for all splits of a run: "none", "memory" (decode once) or "device" (and keep on the GPU).

    `data.cache=auto` chooses "device" if the images take at most `DEVICE_SHARE` of the GPU's free memory, "memory" if
    images in files take at most `RAM_SHARE` of the free RAM, and "none" otherwise.

    Args:
        free_ram, free_device: bytes for this process; free_device is 0 without a GPU.

    Raises:
        UserError: the requested cache doesn't fit, or isn't possible with this data.
    """
    wanted = str(cfg.data.cache)
    movable = cfg.data.augment in ("none", "basic") and not (
        cfg.data.mixup_alpha or cfg.data.cutmix_alpha or cfg.data.sizes
    )
    fixed = all(type(split) is Split and not own_order(split) for split in splits)  # a table is a kind of split
    need = sum(len(split) * int(np.prod(split.images.shape)) for split in splits) if fixed else 0
    if wanted in ("memory", "device") and not fixed:
        raise UserError(f"data.cache={wanted} is for images of one size that fit in memory: use data.cache=none.")
    if wanted == "device" and not movable:
        raise UserError(
            "data.cache=device supports shifting and mirroring only: use data.augment=basic without data.mixup_alpha, "
            "data.cutmix_alpha and data.sizes, or data.cache=memory."
        )
    if wanted in ("memory", "device") and need > free_ram:
        raise UserError(
            f"data.cache={wanted} needs {need / 2**30:.1f} GiB for the decoded images and {free_ram / 2**30:.1f} GiB "
            "are free: use data.cache=auto or a smaller data.image_size."
        )
    if wanted != "auto":
        chosen = wanted
    elif not fixed or need > RAM_SHARE * free_ram:
        chosen = "none"
    elif movable and need <= DEVICE_SHARE * free_device:
        chosen = "device"
    else:
        chosen = "none" if all(split.images.in_memory for split in splits) else "memory"
    logging.getLogger("train").debug("data.cache=%s was chosen for data.cache=%s.", chosen, wanted)
    return chosen


def keep_decoded(split: Split, cache: str) -> Split:
    """Cache the split's images if `cache` is "memory" and they are in files, unless they have a cache."""
    if cache != "memory" or split.images.in_memory or isinstance(split.images, CachedImages):
        return split
    return replace(split, images=CachedImages(split.images))


def read_all(images: Images, margin: int, workers: int | None, border: str = "black") -> np.ndarray:
    """Decode all images: uint8 (N, C, H + 2 margin, W + 2 margin), with a margin around each, see `pad`."""
    height, width, channels = images.shape
    planes = np.empty((len(images), channels, height + 2 * margin, width + 2 * margin), np.uint8)

    def fill(number: int) -> None:
        chunk = np.arange(number * CHUNK, min(len(images), (number + 1) * CHUNK))
        planes[chunk[0] : chunk[-1] + 1] = pad(images.get(chunk).transpose(0, 3, 1, 2), margin, border)

    threads = choose_workers(images.in_memory) if workers is None else workers
    for _ in prepare_ahead(fill, -(-len(images) // CHUNK), max(1, threads)):
        pass
    return planes
