"""Which samples of a data set belong to a split: what every data set's `build` is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from src.kit.splitting.splits import group_by, split_off_val


@dataclass(frozen=True)
class SplitRule:
    """The split that is wanted (`name`: "train", "val" or "test") and how samples are divided into splits.

    The fields are the keys of `data` that every data set shares: `val_fraction` and `test_fraction` in [0, 1), `fold`
    counted from 1 of `folds` or None, `group_pattern` a regular expression or None, `seed` the run's, and `data` the
    data set's name for messages.
    """

    name: str
    seed: int
    data: str = ""
    val_fraction: float = 0.0
    test_fraction: float = 0.0
    fold: int | None = None
    folds: int | None = None
    group_pattern: str | None = None

    def choose(self, targets: np.ndarray, paths: Sequence[str] | None = None, test: bool = False) -> np.ndarray:
        """Indices int64 of the samples in this split, stratified by their classes.

        Args:
            targets: class numbers int64 (N,) of all samples that the splits are cut from.
            paths: their files' names, which `group_pattern` is matched against; None ignores the pattern.
            test: whether a test split is cut off too (`test_fraction`); publishers' data sets have one of their own.

        Raises:
            UserError: a fraction or a fold that leaves a split empty, or files that the pattern does not match.
        """
        groups = group_by(paths, self.group_pattern) if paths is not None and self.group_pattern else None
        return split_off_val(targets, self, self.seed, self.name, self.test_fraction if test else 0.0, groups)
