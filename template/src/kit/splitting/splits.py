"""Seeded splits: stratified by class or by sets of classes, and never with one group in two parts."""

import re
from collections.abc import Sequence

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.splitting.folds import make_folds
from src.kit.splitting.iterative import count_labels, iterative_split


def split_off_val(
    targets: np.ndarray,
    cfg_data: DictConfig,
    seed: int,
    split: str,
    test_fraction: float = 0.0,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Choose the samples of "train", "val" or "test" from data that have no validation split of their own.

    "val" is `cfg_data.val_fraction` of the samples; or fold number `cfg_data.fold` (from 1) of `cfg_data.folds`, which
    divide all that is not "test". The test samples are the same in every fold.

    Args:
        targets: int64 (N,) class numbers, or bool (N, K) for sets of classes.
        test_fraction: the share of "test", 0 for data with a test split of their own.
        groups: int64 (N,); samples of one group stay together.

    Returns:
        Sorted int64 sample numbers.

    Raises:
        UserError: fractions that leave nothing to train on, or fewer samples or groups than folds.
    """
    if cfg_data.group_pattern is not None and groups is None:
        raise UserError(f"data.group_pattern needs images in files, and data={cfg_data.name} has none: set it to null.")
    rest, val, test = divide(targets, (cfg_data.val_fraction, test_fraction), seed, groups)
    if cfg_data.fold is not None:
        if not cfg_data.folds or cfg_data.fold > cfg_data.folds:
            raise UserError(f"data.fold={cfg_data.fold} needs data.folds, as many or more, not {cfg_data.folds}.")
        known = np.sort(np.concatenate([rest, val]))
        folds = make_folds(targets[known], cfg_data.folds, seed, None if groups is None else groups[known])
        val = known[folds[cfg_data.fold - 1]]
        rest = np.setdiff1d(known, val)
    return {"train": rest, "val": val, "test": test}[split]


def divide(
    targets: np.ndarray, fractions: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Split the samples into the rest and one part for each fraction, as `stratified_split` does.

    Sets of classes and groups cannot be divided as exactly: there the shares of samples and classes come as close as
    iterative stratification brings them (see `src/kit/splitting/iterative.py`).
    """
    if groups is None and targets.ndim == 1:
        return stratified_split(targets, fractions, seed)
    check(fractions)
    return iterative_split(count_labels(targets), (1 - sum(fractions), *fractions), seed, groups)


def stratified_split(targets: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Split the samples into the rest and one part for each fraction.

    Args:
        targets: int64 (N,) class numbers.
        fractions: the share of each class that goes to each part. A class with more samples than there are such parts
            gives each of them at least one.

    Returns:
        Sorted, disjoint indices that together cover all samples: the rest first, then a part for each fraction.

    Raises:
        UserError: a fraction is negative or nothing would be left to train on.
    """
    check(fractions)
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for number in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == number))
        start = 0
        for part, fraction in zip(parts[1:], fractions, strict=True):
            count = round(len(members) * fraction)
            if fraction > 0 and len(members) > np.count_nonzero(fractions):
                count = max(1, count)
            part.append(members[start : start + count])
            start += count
        parts[0].append(members[start:])
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]


def check(fractions: Sequence[float]) -> None:
    """Refuse shares that leave nothing to train on."""
    if min(fractions) < 0 or sum(fractions) >= 1:
        shares = " + ".join(f"{fraction:g}" for fraction in fractions)
        raise UserError(f"The validation and test fractions {shares} must be 0 or more and sum to less than 1.")


def group_by(names: Sequence[str], pattern: str) -> np.ndarray:
    """Group names by the text that a regular expression's first group (or all of it) finds in them: int64 (N,).

    Raises:
        UserError: no regular expression, or a name in which it finds nothing.
    """
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise UserError(f"data.group_pattern={pattern!r} is no regular expression: {error}.") from error
    for name, match in zip(names, found, strict=True):
        if match is None:
            raise UserError(
                f"data.group_pattern={pattern!r} finds nothing in {name!r}: it must find every file's group."
            )
    texts = [match.group(1 if match.re.groups else 0) or "" for match in found if match]
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)
