"""Which samples of a data set belong to a split: the first argument of every data set's `build`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.kit.config import UserError
from src.kit.splitting.stratify import make_folds, split_by_fractions


@dataclass(frozen=True)
class SplitRule:
    """The split to build, and how samples are divided into splits: the keys of `data` that data sets share.

    Attributes:
        name: "train", "val" or "test".
        seed: the run's; the same seed gives the same splits.
        data: the data set's name, for messages.
        task: the run's task, for data sets that refuse some.
        val_fraction: share of the samples in "val", in [0, 1).
        test_fraction: share of the samples in "test", in [0, 1), unless the publisher has a test split.
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

    def choose(
        self,
        targets: np.ndarray,
        paths: Sequence[str | Path] | None = None,
        test: bool = False,
        root: str | Path | None = None,
    ) -> np.ndarray:
        """Select this split's samples from data that come without a validation split.

        "val" is `val_fraction` of the samples, or one of the folds into which everything but "test" is divided. All
        folds have the same test samples.

        Args:
            targets: class numbers int64 (N,), or sets of classes bool (N, K).
            paths: the files, for `group_pattern`; None for data without files.
            test: whether to cut off `test_fraction` too.
            root: folder of the files; `group_pattern` is matched against their paths below it.

        Returns:
            Sorted int64 indices, with the same shares of every class as the whole.

        Raises:
            UserError: fractions that leave no training samples, fewer samples or groups than folds, or a pattern that
                doesn't match every path or is set for data without files.
        """
        groups = self.find_groups(paths, root)
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
