"""The rows of a table as a split, encoded for the network."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from src.kit.loading import Split
from src.kit.tabular.preprocessing import Preprocessing


class Rows:
    """Encoded rows in memory. Each counts as an image of one pixel with F channels, where something asks for images."""

    in_memory = True

    def __init__(self, values: np.ndarray) -> None:
        """`values`: float32 (N, F)."""
        assert values.dtype == np.float32, values.dtype
        assert values.ndim == 2, values.shape
        self.values = values
        self.shape = (1, 1, values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """float32 (B, 1, 1, F), a copy."""
        return self.values[indices][:, None, None]

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at these indices, in this order."""
        return Rows(self.values[indices])


@dataclass(frozen=True)
class TableSplit(Split):
    """The rows of one split: `images` is a `Rows`.

    `targets` are int64 (N,) numbers into `classes`; or, to predict a number, float64 (N,) in their own unit, and
    `classes` is empty. `ids` are the rows' numbers in the table; rows that SMOTE made up have -1.
    """

    content: ClassVar[str] = "the rows of a table"
    unit: ClassVar[str] = "rows"
    images: Rows
    preprocessing: Preprocessing = field(kw_only=True)

    def __post_init__(self) -> None:
        assert len(self.images) == len(self.targets), (len(self.images), len(self.targets))
        assert self.targets.dtype == (np.int64 if self.classes else np.float64), self.targets.dtype

    def class_counts(self) -> np.ndarray:
        """How many rows each class has, int64 (K,); empty for a number."""
        return super().class_counts() if self.classes else np.empty(0, np.int64)
