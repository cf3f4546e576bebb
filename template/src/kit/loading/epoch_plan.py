"""An epoch of a `Loader` drawn in advance, for images that lie on a device and are batched there."""

from dataclasses import dataclass

import numpy as np

from src.kit.loading.loader import Loader
from src.kit.loading.order import order
from src.kit.loading.transforms import normalize


@dataclass(frozen=True)
class Plan:
    """The samples of an epoch and where their pixels come from.

    Pixel (y, x) of sample i is pixel (rows[i, y], columns[i, x]) of image samples[i] with black around it.
    """

    samples: np.ndarray  # int64 (N,)
    rows: np.ndarray | None  # int64 (N, H); None where images are not augmented
    columns: np.ndarray | None  # int64 (N, W)


def margin(loader: Loader) -> int:
    """Pixels of black that the loader's augmentation may shift in from each side."""
    return max(1, loader.split.images.shape[0] // 8) if loader.augment == "basic" else 0


def plan_epoch(loader: Loader) -> Plan:
    """Draw what the loader draws in its current epoch, from its first batch on, number by number."""
    rng = np.random.default_rng([loader.seed, loader.epoch])
    samples = order(loader.split, loader.shuffle, loader.sampler, loader.rank, loader.world_size, rng)
    start, size = loader.first_batch, loader.batch_size
    batches = [samples[number * size : (number + 1) * size] for number in range(start, loader.batches)]
    chosen = np.concatenate([np.empty(0, np.int64), *batches])
    if loader.augment == "none":
        return Plan(chosen, None, None)
    assert loader.augment == "basic", loader.augment
    moves = [draw_moves(loader, start + number, len(batch)) for number, batch in enumerate(batches)]
    rows, columns = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    return Plan(chosen, rows, columns)


def draw_moves(loader: Loader, number: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 (B, H) and columns (B, W) of batch `number`, drawn as in `src/kit/augment/basic.py`."""
    height, width, _ = loader.split.images.shape
    rng = np.random.default_rng([loader.seed, loader.epoch, loader.rank, number])
    top, left = rng.integers(0, 2 * margin(loader) + 1, (2, count))
    columns = np.tile(np.arange(width), (count, 1))
    if loader.split.flippable:
        mirrored = rng.random(count) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    return top[:, None] + np.arange(height), left[:, None] + columns


def normalisation(loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C, 1, 1) scale and shift: `pixels * scale + shift`, rounded twice, has the bits of `normalize`."""
    channels = len(loader.mean)
    scale = normalize(np.ones((1, channels, 1, 1), np.uint8), [0.0] * channels, loader.std)[0]
    return scale, normalize(np.zeros((1, channels, 1, 1), np.uint8), loader.mean, loader.std)[0]
