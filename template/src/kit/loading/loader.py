"""Batches of a split as NumPy arrays, for any framework."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf

from src.kit.augment import AUGMENTATIONS, build_augmentation, choose_mirrored, farthest_shift, mirror, mix_batch
from src.kit.config import UserError, unknown
from src.kit.inference import normalize, resize
from src.kit.loading.cache import choose_workers, prepare_ahead, useful_threads
from src.kit.loading.images import Split, own_order
from src.kit.loading.sharing import Part, count_samples, order, refuse_other_number

Batch = tuple[np.ndarray, np.ndarray]


def order_options(cfg: DictConfig, kind: str, rank: int, world_size: int) -> dict[str, Any]:
    """Arguments of `Loader.share_out`; `kind` is train, val or test. Only training is shuffled.

    Raises:
        UserError: `data.batch_size=auto`, which only the start of a training replaces by a number.
    """
    train, size = kind == "train", cfg.data.batch_size
    if isinstance(size, str):
        raise UserError("data.batch_size=auto is chosen by scripts/train.py: set a number here.")
    return {
        "batch_size": list(size) if isinstance(size, ListConfig) else size,
        "sampler": cfg.data.sampler if train else "none",
        "shuffle": train,
        "seed": cfg.seed,
        "limit": cfg.trainer[f"limit_{kind}_batches"],
        "rank": rank,
        "world_size": world_size,
    }


def largest_batch(cfg: DictConfig) -> int:
    """The samples of a batch on the device that takes most: `data.batch_size` may be a list, one for each device."""
    size = cfg.data.batch_size
    return int(max(size) if isinstance(size, ListConfig) else size)


def count_batches(samples: int, batch_size: int, drop_single: bool, limit: int | float = 1.0) -> int:
    """Number of batches in an epoch; `drop_single` leaves out a last one of a single sample.

    Raises:
        UserError: the limit is out of range.
    """
    whole = -(-samples // batch_size) - int(drop_single and samples > 1 and samples % batch_size == 1)
    if limit <= 0 or (isinstance(limit, float) and limit > 1):
        raise UserError(f"A limit of batches must be an integer >= 1 or a fraction above 0 up to 1.0, not {limit!r}.")
    return min(whole, limit if isinstance(limit, int) else max(1, int(whole * limit)))


def refuse_large_batch(batch_size: int, samples: int, world_size: int) -> None:
    """Refuse a batch that is larger than the training split."""
    if batch_size > samples:
        share = f" for each of {world_size} devices" if world_size > 1 else ""
        raise UserError(
            f"data.batch_size={batch_size} is more than the {samples} training samples{share}: make it smaller."
        )


def refuse_keys(cfg_data: DictConfig, off: Mapping[str, Any], why: str) -> None:
    """Refuse keys of `cfg.data` that differ from `off`; `why` follows the key and its value in the message."""
    for key, value in off.items():
        if cfg_data[key] != value:
            raise UserError(f"data.{key}={cfg_data[key]} {why}: set it to {'null' if value is None else value}.")


class BatchLoader(Protocol):
    """Batches `(images, *targets)` of one rank, in an order that depends on seed, epoch and rank only."""

    samples: int  # of a whole epoch of this rank
    epoch: int  # whose order the next iteration has

    def weight(self, number: int) -> float:
        """What to multiply the loss of a batch by, 1 unless ranks have batches of unequal size."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]: ...

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch whose order is drawn next, and the batch (from 0) it begins with."""
        ...

    def position(self, batch: int) -> list[Part]:
        """The parts of the epoch that are over when this rank has had `batch` batches of it."""
        ...

    def resume(self, epoch: int, parts: Sequence[Part]) -> int:
        """Go on after the parts of an epoch that `position` has told; returns the number of the next batch."""
        ...


class Loader:
    """Yield new arrays `(images, targets)`: normalised float32 (B, C, H, W) and int64 (B,).

    Order and augmentation depend on `seed`, epoch and `rank` only, not on the number of workers. With `shuffle` every
    rank gets equally many samples, so a few may repeat; without it each sample goes to one rank. With MixUp or CutMix
    the targets are float32 (B, K): the probability of each class.

    Args:
        mean, std: one value per channel, for pixels from 0 to 1.
        augment: one of `AUGMENTATIONS`.
        shift, border: of augment="basic"; see `src.kit.augment`.
        mixup_alpha, cutmix_alpha: see `mix_batch`; 0 is off.
        sizes: resize each batch to one of these heights and widths, drawn at random, the same on every rank.
        num_workers: threads that prepare batches ahead; 0 prepares each batch on request. None: at most one per core,
            see `useful_threads`; for images in memory 0, or 1 with augment="advanced".
        sharing: see `share_out`.

    Raises:
        UserError: the batch is larger than the training split, `mean` or `std` doesn't fit the channels, the
            augmentation is unknown or doesn't fit the images, a shift is as large as they are, a size isn't positive,
            the images have an order of their own and a sampler is set, or a limit is out of range.
    """

    automatic = False  # whether `threads` may be fewer than `num_workers`

    def __init__(
        self,
        split: Split,
        batch_size: int | Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        augment: str = "none",
        shift: int | None = None,
        border: str = "black",
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        sizes: Sequence[int] | None = None,
        num_workers: int | None = None,
        **sharing: Any,
    ) -> None:
        self.share_out(split, batch_size, **sharing)
        self.mean, self.std, self.augment = tuple(mean), tuple(std), augment
        self.farthest, self.border = shift, border
        self.alphas, self.sizes = (mixup_alpha, cutmix_alpha), sizes
        # Albumentations works image by image, so even images in memory are worth a thread
        automatic = max(choose_workers(split.images.in_memory), int(augment == "advanced"))
        self.num_workers = automatic if num_workers is None else num_workers
        self.automatic = num_workers is None and augment != "advanced"
        self.check_images(channels=split.images.shape[2])
        if shift is not None and shift >= (side := min(split.images.shape[:2])):
            raise UserError(f"data.shift={shift} moves images of {side} pixels out of sight: set a smaller number.")
        self.transform = build_augmentation(augment, split.flippable, shift, border)
        self.mirrored = choose_mirrored(self.seed, len(split)) if augment == "basic" and split.flippable else None

    def share_out(
        self,
        split: Any,
        batch_size: int | Sequence[int],
        sampler: str = "none",
        shuffle: bool = False,
        seed: int = 0,
        limit: int | float = 1.0,
        rank: int = 0,
        world_size: int = 1,
        drop_single: bool = False,
    ) -> None:
        """Divide the samples among ranks and batches, the same way for every kind of data.

        Args:
            batch_size: on every rank, or a list with each rank's own. One process alone then takes their sum, which
                trains the same, and evaluation the largest.
            sampler: how often each class is drawn, one of `METHODS` in `sharing.py`.
            limit: a number of batches if an integer, a share of them if a float (at least one batch).
            drop_single: leave out a last batch of a single sample, over which batch normalisation has no variance.
        """
        assert 0 <= rank < world_size, (rank, world_size)
        self.rank_sizes: tuple[int, ...] = ()
        if not isinstance(batch_size, int):
            refuse_other_number(batch_size, world_size, split)
            self.rank_sizes = tuple(batch_size) if shuffle and world_size > 1 else ()
            alone = sum(batch_size) if shuffle else max(batch_size)
            batch_size = self.rank_sizes[rank] if self.rank_sizes else alone
        self.split, self.batch_size, self.sampler = split, batch_size, sampler
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.drop_single = drop_single and not self.rank_sizes
        self.whole = self.count()
        self.samples = self.whole[0]
        self.batches = count_batches(self.samples, batch_size, self.drop_single, limit)
        if shuffle:
            refuse_large_batch(batch_size, self.samples, world_size)
        self.set_epoch(0)

    def count(self, parts: Sequence[Part] = ()) -> tuple[int, int]:
        """Samples of an epoch after `parts` of it: this rank's, and those of all ranks if their batches are unequal."""
        ranks = range(self.world_size) if self.rank_sizes else [self.rank]
        options = (self.world_size, self.rank_sizes, parts)
        counts = {rank: count_samples(self.split, self.shuffle, self.sampler, rank, *options) for rank in ranks}
        return counts[self.rank], sum(counts.values())

    def check_images(self, channels: int) -> None:
        """Refuse arguments that don't fit the images."""
        if not len(self.mean) == len(self.std) == channels or min(self.std) <= 0:
            raise UserError(
                f"data.mean={list(self.mean)} and data.std={list(self.std)} must have one value for each of {channels} "
                f"channel{'s' * (channels > 1)}, and std must be above 0."
            )
        if self.augment not in AUGMENTATIONS:
            raise UserError(unknown("data.augment", self.augment, AUGMENTATIONS))
        if self.augment == "advanced" and channels not in (1, 3):
            raise UserError(f"data.augment=advanced is for images of 1 or 3 channels, not {channels}: use basic.")
        if not all(isinstance(size, int) and size > 0 for size in self.sizes or ()):
            raise UserError(f"data.sizes must be a list of heights in pixels or null, not {list(self.sizes or ())}.")
        if self.sampler != "none" and own_order(self.split):
            raise UserError(f"data.sampler={self.sampler} cannot be used with data that is read in its own order.")

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Set the epoch, which decides order and augmentation, and the first batch of the iterations that follow."""
        self.epoch, self.first_batch = epoch, first_batch
        self.parts, self.start, self.left = tuple[Part, ...](), 0, self.whole

    def position(self, batch: int) -> list[Part]:
        """The parts of the epoch that are over when this rank has had `batch` batches of it."""
        return [*self.parts, (*self.division(), batch - self.start)]

    @cached_property
    def threads(self) -> int:
        """Those of `num_workers` that are worth starting, if their number was left open."""
        return useful_threads(self.split.images, self.num_workers) if self.automatic else self.num_workers

    def division(self) -> tuple[int, int]:
        """How the samples of a step are divided: among so many processes, with so many for each."""
        return (1, sum(self.rank_sizes)) if self.rank_sizes else (self.world_size, self.batch_size)

    def resume(self, epoch: int, parts: Sequence[Part]) -> int:
        """Go on after `parts` of an epoch, which other numbers of processes may have had; returns the next batch.

        What they have left is divided among this run's processes, as its last batches.
        """
        self.set_epoch(epoch)
        *others, (ranks, size, batches) = parts
        if (ranks, size) != self.division():
            others, batches = [*parts], 0
        if others:
            self.parts, self.left = tuple(others), self.count(others)
            whole, rest = (count_batches(n, self.batch_size, self.drop_single) for n in (self.samples, self.left[0]))
            self.start = max(min(whole - rest, self.batches - 1), 0)
        self.first_batch = self.start + batches
        return self.first_batch

    def __iter__(self) -> Iterator[Batch]:
        chosen = self.order()
        images = getattr(self.split, "images", None)  # annotated images have none
        if expect := getattr(images, "expect", None):  # they fetch what comes next, in this order
            expect(chosen[self.first_batch * self.batch_size : self.batches * self.batch_size])
        prepare = partial(self.prepare, chosen, self.epoch)
        numbers = range(self.first_batch, self.batches)
        if self.num_workers == 0:
            return map(prepare, numbers)
        return prepare_ahead(lambda step: prepare(numbers[step]), len(numbers), self.threads)

    def weight(self, number: int) -> float:
        """What to multiply the loss of batch `number` by: the mean of all ranks' gradients is then the whole batch's.

        It is n W / N for n of the N samples that W ranks have in this step: 1 unless the batches are unequal.
        """
        if not self.rank_sizes:
            return 1.0
        step, number = sum(self.rank_sizes), number - self.start
        drawn = self.left[1] - number * step
        mine = self.batch_size if drawn >= step else self.left[0] - number * self.batch_size
        return mine * self.world_size / min(drawn, step)

    def order(self) -> np.ndarray:
        """This rank's sample numbers in the order of the current epoch; those of earlier parts are zeros."""
        rng = np.random.default_rng([self.seed, self.epoch])
        options = (self.rank, self.world_size, rng, self.rank_sizes, self.parts)
        left = order(self.split, self.shuffle, self.sampler, *options, arrange=self.arrange)
        return np.concatenate([np.zeros(self.start * self.batch_size, np.int64), left]) if self.parts else left

    def arrange(self, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An epoch's samples, drawn for training on all ranks, in the order in which steps take them."""
        return drawn

    def prepare(self, order: np.ndarray, epoch: int, number: int) -> Batch:
        """Prepare batch `number`."""
        indices = order[number * self.batch_size : (number + 1) * self.batch_size]
        images = self.split.images.get(indices).transpose(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)
        rng = np.random.default_rng([self.seed, epoch, self.rank, number])
        images = self.transform(images, rng)
        if self.mirrored is not None:
            images = mirror(images, self.mirrored[indices] ^ bool(epoch % 2))
        images = resize(images, self.size(epoch, number) or images.shape[2:])
        normalised, targets = normalize(images, self.mean, self.std), self.split.targets[indices]
        if any(self.alphas):
            return mix_batch(normalised, targets, len(self.split.classes), *self.alphas, rng)
        return normalised, targets

    def size(self, epoch: int, number: int) -> tuple[int, int] | None:
        """Height and width of batch `number`, the same on every rank; None keeps the images' own."""
        if not self.sizes:
            return None
        size = np.random.default_rng([self.seed, epoch, number, 0, 1]).choice(self.sizes)
        return int(size), int(size)


def build_image_loader(cfg: DictConfig, split: Split, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
    """Load `split` as `cfg` says; `kind` is train (shuffled and augmented), val or test."""
    if cfg.data.augment != "basic":
        refuse_keys(cfg.data, {"shift": None, "border": "black"}, "is for data.augment=basic")
    alphas: dict[str, Any] = {key: cfg.data[key] if kind == "train" else 0.0 for key in ("mixup_alpha", "cutmix_alpha")}
    moves = {key: cfg.data[key] for key in ("shift", "border")}
    return Loader(split, **image_options(cfg, split, kind, rank, world_size), **alphas, **moves)


def image_options(cfg: DictConfig, split: Any, kind: str, rank: int, world_size: int) -> dict[str, Any]:
    """Arguments of every loader of images, annotated ones too. Only training is augmented."""
    train = kind == "train"
    return order_options(cfg, kind, rank, world_size) | {
        "mean": OmegaConf.to_object(cfg.data.mean),
        "std": OmegaConf.to_object(cfg.data.std),
        "augment": cfg.data.augment if train else "none",
        "sizes": OmegaConf.to_object(cfg.data.sizes) if train and cfg.data.sizes else None,
        "drop_single": train,
        "num_workers": cfg.data.num_workers,
    }


@dataclass(frozen=True)
class Plan:
    """An epoch drawn in advance, for images that stay on a device: the samples and the source of each pixel.

    Pixel (y, x) of sample i is pixel (rows[i, y], columns[i, x]) of image samples[i] with its margin.
    """

    samples: np.ndarray  # int64 (N,)
    rows: np.ndarray | None  # int64 (N, H); None if images are not augmented
    columns: np.ndarray | None  # int64 (N, W)


def margin(loader: Loader) -> int:
    """Width in pixels of the margin that the augmentation may shift into the image."""
    return farthest_shift(loader.farthest, loader.split.images.shape[0]) if loader.augment == "basic" else 0


def plan_epoch(loader: Loader) -> Plan:
    """Draw the loader's current epoch, from its first batch on, with exactly the random numbers the loader draws."""
    samples = loader.order()
    start, size = loader.first_batch, loader.batch_size
    batches = [samples[number * size : (number + 1) * size] for number in range(start, loader.batches)]
    chosen = np.concatenate([np.empty(0, np.int64), *batches])
    if loader.augment == "none":
        return Plan(chosen, None, None)
    assert loader.augment == "basic", loader.augment
    moves = [draw_moves(loader, start + number, batch) for number, batch in enumerate(batches)]
    rows, columns = (np.concatenate(parts) for parts in zip(*moves, strict=True))
    return Plan(chosen, rows, columns)


def draw_moves(loader: Loader, number: int, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, int64 (B, H), and columns (B, W) of batch `number`, drawn as by `Loader.prepare`; its samples are (B,)."""
    height, width, _ = loader.split.images.shape
    rng, count = np.random.default_rng([loader.seed, loader.epoch, loader.rank, number]), len(samples)
    top, left = rng.integers(0, 2 * margin(loader) + 1, (2, count))
    columns = np.tile(np.arange(width), (count, 1))
    if loader.mirrored is not None:
        mirrored = loader.mirrored[samples] ^ bool(loader.epoch % 2)
        columns[mirrored] = columns[mirrored, ::-1]
    return top[:, None] + np.arange(height), left[:, None] + columns


def normalisation(loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, float32 (C, 1, 1): `pixels * scale + shift`, rounded twice, is bit-equal to `normalize`."""
    channels = len(loader.mean)
    scale = normalize(np.ones((1, channels, 1, 1), np.uint8), [0.0] * channels, loader.std)[0]
    return scale, normalize(np.zeros((1, channels, 1, 1), np.uint8), loader.mean, loader.std)[0]
