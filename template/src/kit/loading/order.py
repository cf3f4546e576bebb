"""Which samples a rank sees in an epoch, in which order, and how many batches that makes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading.balance import draw, epoch_size
from src.kit.loading.base import Split


def order_options(cfg: DictConfig, kind: str, rank: int, world_size: int) -> dict[str, Any]:
    """What `Loader.share_out` is given for `kind`, which is train, val or test; only training is shuffled."""
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
    """How many samples `order` returns, the same for every epoch."""
    if not shuffle:
        return len(range(rank, len(split), world_size))
    drawn = len(split) if sampler == "none" else epoch_size(split.targets, sampler)
    return -(-drawn // world_size)


def order(
    split: Split, shuffle: bool, sampler: str, rank: int, world_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the sample numbers of one rank in one epoch, int64; `rng` is in the same state on every rank.

    Shuffled, every rank gets equally many samples, by repeating a few; otherwise each sample goes to one rank only.
    Images with an order of their own are shared out in blocks, all others in turn.
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
    """The `epoch_order` of images that are read together and must stay neighbours, such as those of one shard."""
    images = getattr(split, "images", None)  # annotated images have none, and no order of their own
    own: Callable[[np.random.Generator], np.ndarray] | None = getattr(images, "epoch_order", None)
    return own


def count_batches(samples: int, batch_size: int, drop_last: bool, limit: int | float) -> int:
    """How many batches an iteration has.

    Raises:
        UserError: the limit is out of its range.
    """
    whole = samples // batch_size if drop_last else -(-samples // batch_size)
    if limit <= 0 or (isinstance(limit, float) and limit > 1):
        raise UserError(
            f"A limit of batches must be an integer from 1 or a fraction above 0 and up to 1.0, not {limit!r}."
        )
    return min(whole, limit if isinstance(limit, int) else max(1, int(whole * limit)))


def refuse_large_batch(batch_size: int, samples: int, world_size: int) -> None:
    """Refuse a batch that the training data do not fill."""
    if batch_size > samples:
        share = f" for each of {world_size} devices" if world_size > 1 else ""
        raise UserError(
            f"data.batch_size={batch_size} is more than the {samples} training samples{share}: make it smaller."
        )


def refuse_keys(cfg_data: DictConfig, off: Mapping[str, Any], why: str) -> None:
    """Refuse keys of `cfg.data` that are not as in `off`; `why` follows the key and its value in the message."""
    for key, value in off.items():
        if cfg_data[key] != value:
            raise UserError(f"data.{key}={cfg_data[key]} {why}: set it to {'null' if value is None else value}.")
