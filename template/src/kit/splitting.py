"""Train, validation and test splits and cross-validation folds: seeded, stratified, and never splitting a group."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.kit.config import UserError

__all__ = ["SplitRule", "iterative_split", "stratified_split"]


def split_by_fractions(
    targets: np.ndarray, fractions: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Split the samples into the rest and one part per fraction.

    Classes are split exactly (`stratified_split`). Sets of classes and groups can't be: there, `iterative_split` brings
    the shares as close as possible.

    Args:
        targets: class numbers int64 (N,), or sets of classes bool (N, K).
        fractions: share of each part.
        groups: int64 (N,); samples of one group stay together.

    Raises:
        UserError: a negative fraction, or nothing left to train on.
    """
    if groups is None and targets.ndim == 1:
        return stratified_split(targets, fractions, seed)
    check_fractions(fractions)
    return iterative_split(count_labels(targets), (1 - sum(fractions), *fractions), seed, groups)


def stratified_split(targets: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Split the samples into the rest and one part per fraction.

    Args:
        targets: class numbers int64 (N,).
        fractions: share of each class in each part. A class with more samples than these parts puts at least one in
            each, and into the rest.

    Returns:
        Sorted, disjoint indices that cover all samples: the rest, then one part per fraction.

    Raises:
        UserError: a negative fraction, or nothing left to train on.
    """
    check_fractions(fractions)
    rng = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for number in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == number))
        enough = len(members) > np.count_nonzero(fractions)
        counts = [max(round(len(members) * fraction), int(enough and fraction > 0)) for fraction in fractions]
        while enough and sum(counts) >= len(members):  # rounding has left nothing to train on
            counts[counts.index(max(counts))] -= 1
        chosen = np.split(members, np.cumsum(counts))
        for part, indices in zip(parts, [chosen[-1], *chosen[:-1]], strict=True):
            part.append(indices)
    return [np.sort(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse fractions that leave nothing to train on."""
    if min(fractions) < 0 or sum(fractions) >= 1:
        shares = " + ".join(f"{fraction:g}" for fraction in fractions)
        raise UserError(f"The validation and test fractions {shares} must be 0 or more and sum to less than 1.")


def make_folds(targets: np.ndarray, count: int, seed: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Divide the samples into `count` folds with the same shares of every class; each sample is in one of them.

    Args:
        targets: class numbers int64 (N,), or sets of classes bool (N, K).
        groups: int64 (N,); samples of one group stay together.

    Returns:
        Sorted, disjoint indices. For class numbers without groups, the folds' sizes differ by at most one, and so do
        their numbers of samples of each class.

    Raises:
        UserError: fewer samples or groups than folds.
    """
    if groups is None and targets.ndim == 1:
        folds = deal_classes(targets, count, seed)
    else:
        folds = iterative_split(count_labels(targets), [1 / count] * count, seed, groups)
    if min(map(len, folds)) == 0:
        what = f"{len(targets)} samples" if groups is None else f"{len(np.unique(groups))} groups"
        raise UserError(f"trainer.folds={count} is too many for {what}: one of the folds is empty, so choose fewer.")
    return folds


def deal_classes(targets: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Deal each class out like cards: the next class begins with the player after the last card."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(targets))
    cards = shuffled[np.argsort(targets[shuffled], kind="stable")]
    return [np.sort(cards[number::count]) for number in range(count)]


def iterative_split(
    labels: np.ndarray, shares: Sequence[float], seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Divide samples into parts with (nearly) the given share of every label.

    After Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10: assign the rarest label's samples first. The paper picks the part that
    wants this label most; here all labels of a sample count, since a group has many.

    Args:
        labels: int64 (N, K), how often each sample has each label; a row of zeros has none.
        shares: share of each part; they sum to 1.
        groups: int64 (N,); samples of one group stay together. Large groups are assigned first, so that small ones can
            even out the shares.

    Returns:
        Sorted indices of each part.
    """
    numbers = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((numbers.max(initial=-1) + 1, labels.shape[1] + 1), np.int64)
    np.add.at(counts, numbers, np.column_stack([labels, np.ones(len(labels), np.int64)]))
    open_parts = np.flatnonzero(np.asarray(shares) > 0)
    parts = assign_groups(counts, np.asarray(shares, float)[open_parts], np.random.default_rng(seed))[numbers]
    return [
        np.flatnonzero(parts == np.searchsorted(open_parts, part)) if share > 0 else parts[:0]
        for part, share in enumerate(shares)
    ]


def assign_groups(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the part of each group: int64 (G,).

    Args:
        counts: int64 (G, K + 1), how often a group has each label, and in the last column its number of samples.
        shares: share of each of the P parts, all above 0.
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
            # change of sum((what a part still wants)^2 * weight); ties are broken at random
            change = ((more - 2 * wanted) * more * weights).sum(axis=1).round(9)
            parts[group] = part = rng.choice(np.flatnonzero(change == change.min()))
            wanted[part] -= more
            left -= more
    return parts


def count_labels(targets: np.ndarray) -> np.ndarray:
    """Convert class numbers int64 (N,) or sets of classes bool (N, K) to counts int64 (N, K)."""
    if targets.ndim == 2:
        return targets.astype(np.int64)
    classes, numbers = np.unique(targets, return_inverse=True)
    return (numbers[:, None] == np.arange(len(classes))).astype(np.int64)


@dataclass(frozen=True)
class SplitRule:
    """The split to build, and how samples are divided into splits: the keys of `data` that data sets share.

    Attributes:
        name: "train", "val" or "test".
        seed: the run's; the same seed gives the same splits.
        data: the data set's name, for messages.
        task: the run's task, for data sets that refuse some.
        val_fraction: share of the samples in "val", in [0, 1]; 1 only if nothing is trained.
        test_fraction: share of the samples in "test", likewise, unless the publisher has a test split.
        fold: validate on this fold, counted from 1, instead of on `val_fraction`; None without cross-validation.
        folds: number of folds.
        group_pattern: regular expression; files whose paths give the same match stay in one split. None: no groups.
    """

    name: str
    seed: int
    data: str = ""
    task: str = ""
    val_fraction: float = 0.0
    test_fraction: float = 0.0
    fold: int | None = None
    folds: int | None = None
    group_pattern: str | None = None

    @property
    def holds_all(self) -> bool:
        """Whether this split consists of all samples, as when a run is evaluated on new ones."""
        return {"val": self.val_fraction, "test": self.test_fraction}.get(self.name) == 1

    def choose(
        self,
        targets: np.ndarray,
        paths: Sequence[str | Path] | None = None,
        test: bool = False,
        root: str | Path | None = None,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        """Select this split's samples from data that come without a validation split.

        "val" is `val_fraction` of the samples, or one of the folds into which everything but "test" is divided. All
        folds have the same test samples.

        Args:
            targets: class numbers int64 (N,), or sets of classes bool (N, K).
            paths: the files, for `group_pattern`; None for data without files.
            test: whether to cut off `test_fraction` too.
            root: folder of the files; `group_pattern` is matched against their paths below it.
            groups: int64 (N,), in place of `group_pattern`; samples of one group stay in one split.

        Returns:
            Sorted int64 indices, with the same shares of every class as the whole.

        Raises:
            UserError: fractions that leave no training samples, fewer samples or groups than folds, or a pattern that
                doesn't match every path or is set for data without files.
        """
        if self.holds_all and (test or self.name == "val"):
            return np.arange(len(targets))
        groups = self.find_groups(paths, root) if groups is None else groups
        fractions = (self.val_fraction, self.test_fraction if test else 0.0)
        train, val, held_out = split_by_fractions(targets, fractions, self.seed, groups)
        if self.fold is not None:
            if not self.folds or self.fold > self.folds:
                raise UserError(f"data.fold={self.fold} needs data.folds={self.fold} or more, not {self.folds}.")
            rest = np.sort(np.concatenate([train, val]))
            folds = make_folds(targets[rest], self.folds, self.seed, None if groups is None else groups[rest])
            val = rest[folds[self.fold - 1]]
            train = np.setdiff1d(rest, val)
        return {"train": train, "val": val, "test": held_out}[self.name]

    def find_groups(self, paths: Sequence[str | Path] | None, root: str | Path | None) -> np.ndarray | None:
        """The group number of each path, int64 (N,); None without a pattern."""
        if self.group_pattern is None:
            return None
        if paths is None:
            raise UserError(f"data.group_pattern needs images in files, and data={self.data} has none: set it to null.")
        names = [Path(path if root is None else os.path.relpath(path, root)).as_posix() for path in paths]
        return group_by_pattern(names, self.group_pattern)


def group_by_pattern(paths: Sequence[str], pattern: str) -> np.ndarray:
    """Number paths by the text that a regular expression's first group (or all of it) matches in them: int64 (N,).

    Raises:
        UserError: an invalid regular expression, or one that doesn't match every path.
    """
    try:
        matches = [re.search(pattern, path) for path in paths]
    except re.error as error:
        raise UserError(f"data.group_pattern={pattern!r} is no regular expression: {error}.") from error
    for path, match in zip(paths, matches, strict=True):
        if match is None:
            raise UserError(f"data.group_pattern={pattern!r} finds nothing in {path!r}: make it match every file.")
    texts = [match.group(1 if match.re.groups else 0) or "" for match in matches if match]
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)
