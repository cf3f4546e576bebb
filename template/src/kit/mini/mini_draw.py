"""An exact number of samples for two parts, with the shares of the classes of the whole."""

import numpy as np

from src.kit.config import UserError
from src.kit.splitting import iterative_split


def draw_classes(
    targets: np.ndarray, classes: tuple[str, ...], count: int, val_count: int, both: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exactly `count` samples, at least one of each class in each part."""
    present, sizes = np.unique(targets, return_counts=True)
    least = 2 if both else 1
    if small := [classes[number] for number, size in zip(present, sizes, strict=True) if size < least]:
        raise UserError(f"The class {small[0]} has too few images: one is needed for train and one for val.")
    if count - val_count < len(present) or (both and val_count < len(present)):
        raise UserError(
            f"sample_count={count:,} is too small: it leaves {count - val_count:,} images for train and {val_count:,} "
            f"for val, and there are {len(present)} classes."
        )
    quotas = share_out(count, sizes, least)
    val_quotas = share_out(val_count, quotas - 1, 1) if both else np.zeros_like(quotas)
    rng = np.random.default_rng(seed)
    train, val = [], []
    for number, quota, val_quota in zip(present, quotas, val_quotas, strict=True):
        drawn = rng.permutation(np.flatnonzero(targets == number))[:quota]
        val.append(drawn[:val_quota])
        train.append(drawn[val_quota:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def share_out(total: int, sizes: np.ndarray, least: int) -> np.ndarray:
    """Divide `total` in proportion to the sizes, at least `least` to each: int64 (K,), by the largest remainders."""
    exact = total * sizes / sizes.sum()
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    while shares.min() < least:
        shares[shares.argmin()] += 1
        shares[np.where(shares > least, shares - exact, -np.inf).argmax()] -= 1
    return shares


def draw_scenes(labels: np.ndarray, train: int, val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Exactly so many images whose classes have the shares of the whole, as nearly as they can."""
    counts = (train, val, len(labels) - train - val)
    parts = iterative_split(labels.astype(np.int64), [count / len(labels) for count in counts], seed)
    order = np.concatenate([parts[0], parts[2], parts[1]])  # a part that is a few too large or too small
    return np.sort(order[:train]), np.sort(order[len(order) - val :])
