"""Sizes of the networks for tables, the same in both frameworks."""

from collections.abc import Sequence

from src.kit.config import UserError


def embedding_width(cardinality: int) -> int:
    """Return the width of an embedding: half the number of codes, rounded up, at most 50 (the usual rule of thumb)."""
    return min(50, (cardinality + 1) // 2)


def check_hidden(hidden: Sequence[int]) -> list[int]:
    """Return the widths of the hidden layers as a list.

    Raises:
        UserError: a width is not an integer above 0.
    """
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UserError(f"model.hidden must be a list of layer widths above 0, such as [64, 32], not {list(hidden)}.")
    return list(hidden)
