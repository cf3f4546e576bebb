"""Iterative stratification of samples with any number of classes, and of groups of samples that stay together.

After Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011,
https://doi.org/10.1007/978-3-642-23808-6_10: the rarest label's samples are placed first. The paper places a sample
where that one label is wanted most; here all of its labels count, since a group has many.
"""

from collections.abc import Sequence

import numpy as np


def iterative_split(
    labels: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Divide samples into parts of the given shares, and every label's samples too, as nearly as they can be.

    Args:
        labels: int64 (N, K), how often each sample has each label; a row of zeros has none.
        shares: the share of each part; they sum to 1.
        groups: int64 (N,); a group goes to one part as a whole, the large ones first, which leaves the small ones to
            even out the shares.

    Returns:
        For each part the sorted sample numbers.
    """
    numbers = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((numbers.max(initial=-1) + 1, labels.shape[1] + 1), np.int64)
    np.add.at(counts, numbers, np.column_stack([labels, np.ones(len(labels), np.int64)]))
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    parts = assign(counts, np.asarray(shares, float)[open_parts], np.random.default_rng(seed))[numbers]
    return [
        np.flatnonzero(parts == np.searchsorted(open_parts, part)) if share > 0 else parts[:0]
        for part, share in enumerate(shares)
    ]


def assign(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the part of each group: int64 (G,).

    Args:
        counts: int64 (G, K + 1), how often a group has each label, and in the last column its number of samples.
        shares: the share of each of the P parts, all above 0.
    """
    parts = np.full(len(counts), -1, np.int64)
    left = counts.sum(axis=0)
    wanted = shares[:, None] * left  # (P, K + 1)
    weights = 1 / np.maximum(wanted, 1e-9)  # the same miss matters more to a small part and to a rare label
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    while left.any():
        rarest = np.where(left > 0, left, left.max() + 1).argmin()  # the last column, all samples, comes last
        for group in order[(parts[order] < 0) & (counts[order, rarest] > 0)]:
            more = counts[group]
            # by how much the group changes sum((what a part still wants)^2 * weight); of equal parts any
            change = ((more - 2 * wanted) * more * weights).sum(axis=1).round(9)
            parts[group] = part = rng.choice(np.flatnonzero(change == change.min()))
            wanted[part] -= more
            left -= more
    return parts


def count_labels(targets: np.ndarray) -> np.ndarray:
    """Class numbers int64 (N,) or sets of classes bool (N, K) as int64 (N, K)."""
    if targets.ndim == 2:
        return targets.astype(np.int64)
    classes, numbers = np.unique(targets, return_inverse=True)
    return (numbers[:, None] == np.arange(len(classes))).astype(np.int64)
