"""The samples that a rank sees in an epoch, their order, and the number of batches they make."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading.images import Split, draw_in_rounds

METHODS = ("none", "weighted", "oversample", "undersample")  # data.sampler


def order_options(cfg: DictConfig, kind: str, rank: int, world_size: int) -> dict[str, Any]:
    """Arguments of `Loader.share_out`; `kind` is train, val or test. Only training is shuffled."""
    train = kind == "train"
    return {
        "sampler": cfg.data.sampler if train else "none",
        "shuffle": train,
        "seed": cfg.seed,
        "limit": cfg.trainer[f"limit_{kind}_batches"],
        "rank": rank,
        "world_size": world_size,
    }


def count_samples(split: Any, shuffle: bool, sampler: str, rank: int, world_size: int) -> int:
    """Number of samples that `order` returns, the same in every epoch."""
    if not shuffle:
        return len(range(rank, len(split), world_size))
    drawn = len(split) if sampler == "none" else epoch_size(split.targets, sampler)
    return -(-drawn // world_size)


def order(
    split: Split, shuffle: bool, sampler: str, rank: int, world_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the sample numbers of one rank in one epoch, int64. `rng` must be in the same state on every rank.

    With `shuffle` every rank gets equally many samples, so a few may repeat; without it each sample goes to one rank.
    Images with an order of their own are divided into blocks, all others alternately.
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
        drawn = draw(split.targets, sampler, rng)
    share = -(-len(drawn) // world_size)
    everyone = np.resize(drawn, share * world_size)
    return everyone[rank * share : (rank + 1) * share] if own else everyone[rank::world_size]


def own_order(split: Any) -> Callable[[np.random.Generator], np.ndarray] | None:
    """The images' `epoch_order`, if they are read together and must stay neighbours."""
    images = getattr(split, "images", None)  # annotated images have none, and no order of their own
    own: Callable[[np.random.Generator], np.ndarray] | None = getattr(images, "epoch_order", None)
    return own


def draw(targets: np.ndarray, method: str, rng: np.random.Generator) -> np.ndarray:
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
    """Number of samples that `draw` returns."""
    if method in ("none", "weighted"):
        return len(targets)
    counts = np.unique(targets, return_counts=True)[1]
    return int(len(counts) * (counts.max() if method == "oversample" else counts.min()))


def count_batches(samples: int, batch_size: int, drop_last: bool, limit: int | float) -> int:
    """Number of batches in an epoch.

    Raises:
        UserError: the limit is out of range.
    """
    whole = samples // batch_size if drop_last else -(-samples // batch_size)
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
