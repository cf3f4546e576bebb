"""Sizes of the networks for tables, the same in every framework."""

from collections.abc import Sequence

from src.kit.config import UserError


def embedding_width(cardinality: int) -> int:
    """Half as many values as there are codes, rounded up, and at most 50: the usual rule of thumb for tables."""
    return min(50, (cardinality + 1) // 2)


def check_hidden(hidden: Sequence[int]) -> list[int]:
    """The widths of the layers between input and output.

    Raises:
        UserError: one is no number of neurons.
    """
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UserError(f"model.hidden must be a list of layer widths above 0, such as [64, 32], not {list(hidden)}.")
    return list(hidden)
