"""Stratified, seeded splits: every class in the same proportion in every part."""

from collections.abc import Sequence

import numpy as np

from src.utils.errors import UserError


def stratified_split(targets: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Split the samples into the rest and one part for each fraction.

    Args:
        targets: int64 (N,) class numbers.
        fractions: the share of each class that goes to each part. A class of 3 or more samples gives every part with a
            share at least one.

    Returns:
        Sorted, disjoint indices that together cover all samples: the rest first, then a part for each fraction.

    Raises:
        UserError: a fraction is negative or nothing would be left to train on.
    """
    if min(fractions) < 0 or sum(fractions) >= 1:
        shares = " + ".join(f"{fraction:g}" for fraction in fractions)
        raise UserError(f"The validation and test fractions {shares} must be 0 or more and sum to less than 1.")
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for number in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == number))
        start = 0
        for part, fraction in zip(parts[1:], fractions, strict=True):
            count = round(len(members) * fraction)
            if fraction > 0 and len(members) > len(fractions):
                count = max(1, count)
            part.append(members[start : start + count])
            start += count
        parts[0].append(members[start:])
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]
