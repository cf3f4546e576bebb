"""The folds of k-fold cross-validation: each sample is in exactly one of them."""

import numpy as np

from src.kit.config import UserError
from src.kit.splitting.iterative import count_labels, iterative_split


def make_folds(targets: np.ndarray, count: int, seed: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Divide the samples into `count` folds of equal shares of every class.

    Args:
        targets: int64 (N,) class numbers, or bool (N, K) for sets of classes.
        groups: int64 (N,); no group is in two folds.

    Returns:
        Sorted, disjoint indices. With class numbers and without groups, the sizes of two folds differ by at most one,
        and so do their numbers of samples of each class.

    Raises:
        UserError: there are fewer samples or groups than folds.
    """
    if groups is None and targets.ndim == 1:
        folds = deal(targets, count, seed)
    else:
        folds = iterative_split(count_labels(targets), [1 / count] * count, seed, groups)
    if min(map(len, folds)) == 0:
        what = f"{len(targets)} samples" if groups is None else f"{len(np.unique(groups))} groups"
        raise UserError(f"trainer.folds={count} is too many for {what}: one of the folds is empty, so choose fewer.")
    return folds


def deal(targets: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Deal each class out like cards: the next class begins with the player after the last card."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(targets))
    cards = shuffled[np.argsort(targets[shuffled], kind="stable")]
    return [np.sort(cards[number::count]) for number in range(count)]
