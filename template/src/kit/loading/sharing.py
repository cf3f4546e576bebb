"""Which samples of an epoch each process gets, and in which order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.loading.images import Split, draw_in_rounds, own_order

METHODS = ("none", "weighted", "oversample", "undersample")  # data.sampler
Part = tuple[int, int, int]  # of an epoch: how many processes, the size of their batches, and how many each had


def count_samples(
    split: Any,
    shuffle: bool,
    sampler: str,
    rank: int,
    world_size: int,
    sizes: Sequence[int] = (),
    parts: Sequence[Part] = (),
) -> int:
    """Number of samples that `order` returns, the same in every epoch."""
    if not shuffle:
        return len(range(rank, len(split), world_size))
    drawn = len(split) if sampler == "none" else epoch_size(split.targets, sampler)
    return len(share(np.arange(drawn), rank, world_size, sizes, parts, own_order(split) is not None))


def share(
    drawn: np.ndarray, rank: int, world_size: int, sizes: Sequence[int], parts: Sequence[Part], blocks: bool
) -> np.ndarray:
    """This rank's share of what is left of an epoch's samples `drawn` after `parts`; `blocks`: as one piece of them."""
    for ranks, size, batches in parts:
        place, each = np.arange(len(drawn)), -(-len(drawn) // ranks)
        drawn = drawn[(place % each if blocks else place // ranks) >= size * batches]
    if sizes:
        own = divide(drawn, sizes, rank)
        return own if len(own) or not parts else divide(np.resize(drawn, sum(sizes)), sizes, rank)
    # what is left may be less than the two samples for each rank that batch normalisation needs
    each = max(-(-len(drawn) // world_size), min(2, parts[-1][1]) if parts else 0)
    everyone = np.resize(drawn, each * world_size)
    return everyone[rank * each : (rank + 1) * each] if blocks else everyone[rank::world_size]


def divide(drawn: np.ndarray, sizes: Sequence[int], rank: int) -> np.ndarray:
    """This rank's part of the samples of an epoch when ranks have batches of unequal `sizes`, in batches.

    Each global step takes the next sum(sizes) samples. The rest at the end is divided in the same proportion, and left
    out where a rank would get fewer than the two samples that batch normalisation needs.
    """
    step, start = sum(sizes), sum(sizes[:rank])
    whole = len(drawn) // step * step
    own = drawn[:whole].reshape(-1, step)[:, start : start + sizes[rank]].ravel()
    rest = drawn[whole:]
    cuts = np.round(len(rest) * np.cumsum([0, *sizes]) / step).astype(int)
    return own if np.diff(cuts).min() < 2 else np.concatenate([own, rest[cuts[rank] : cuts[rank + 1]]])


def order(
    split: Split,
    shuffle: bool,
    sampler: str,
    rank: int,
    world_size: int,
    rng: np.random.Generator,
    sizes: Sequence[int] = (),
    parts: Sequence[Part] = (),
    arrange: Callable[[np.ndarray, np.random.Generator], np.ndarray] = lambda drawn, rng: drawn,
) -> np.ndarray:
    """Return the sample numbers of one rank in one epoch, int64. `rng` must be in the same state on every rank.

    With `shuffle` every rank gets equally many samples, so a few may repeat, or the parts that `divide` gives to
    batches of unequal `sizes`; without it each sample goes to one rank. Images with an order of their own are divided
    into blocks, all others alternately, so that a step takes neighbours of what `arrange` returns. After `parts` of the
    epoch only the samples that they left are divided.
    """
    own = own_order(split)
    if not shuffle:
        samples = np.arange(len(split))
        return np.array_split(samples, world_size)[rank] if own else samples[rank::world_size]
    if own:
        drawn = own(rng)
    elif sampler == "none":
        drawn = rng.permutation(len(split))
    else:
        drawn = draw_samples(split.targets, sampler, rng)
    return share(arrange(drawn, rng), rank, world_size, sizes, parts, own is not None)


def draw_samples(targets: np.ndarray, method: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the samples of one epoch from classes of unequal size: int64 sample numbers, shuffled.

    Args:
        targets: int64 (N,) class numbers; a class without samples is never drawn.
        method: one of `METHODS`:
            "none": every sample once;
            "weighted": N samples with replacement, each class with the same probability;
            "oversample": each class as often as the largest one, by repeating its samples;
            "undersample": each class as often as the smallest one; larger classes show different samples each epoch.
    """
    assert method in METHODS, method
    if method == "none":
        return rng.permutation(len(targets))
    members = [np.flatnonzero(targets == number) for number in np.unique(targets)]
    if method == "weighted":
        counts = rng.multinomial(len(targets), np.full(len(members), 1 / len(members)))
        return rng.permutation(np.concatenate([rng.choice(m, n) for m, n in zip(members, counts, strict=True)]))
    each = epoch_size(targets, method) // len(members)
    return rng.permutation(np.concatenate([draw_in_rounds(samples, each, rng) for samples in members]))


def epoch_size(targets: np.ndarray, method: str) -> int:
    """Number of samples that `draw_samples` returns."""
    if method in ("none", "weighted"):
        return len(targets)
    counts = np.unique(targets, return_counts=True)[1]
    return int(len(counts) * (counts.max() if method == "oversample" else counts.min()))


def refuse_other_number(sizes: Sequence[int], world_size: int, split: Any) -> None:
    """Refuse a list of batch sizes that is not one for each process, or for data that cannot be divided so."""
    if world_size not in (1, len(sizes)):
        raise UserError(
            f"data.batch_size={list(sizes)} is for {len(sizes)} devices, and the run has {world_size}: give one size "
            "for each."
        )
    if own_order(split):
        raise UserError("Batches of unequal size need data in any order, and shards are read in theirs: set one size.")
