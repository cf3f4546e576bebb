"""Cosine annealing with warm restarts (Loshchilov & Hutter 2016, arXiv 1608.03983)."""

from collections.abc import Callable
from typing import Annotated

from src.kit.config import Range
from src.kit.training import anneal


def build(
    *,
    total_steps: int,
    steps_per_epoch: int,
    min_factor: Annotated[float, Range(min=0, max=1)] = 0.0,
    period_epochs: Annotated[float, Range(above=0)] = 10,
    period_growth: Annotated[float, Range(min=1)] = 2,
) -> Callable[[float], float]:
    """Return factor(step): from 1 down to `min_factor` in each period, then back to 1.

    Args:
        min_factor: Lowest learning rate as a fraction of optimizer.lr.
        period_epochs: Epochs before the first restart.
        period_growth: Growth factor of the period after each restart.
    """

    def factor(step: float) -> float:
        period, rest = max(period_epochs * steps_per_epoch, 1.0), float(step)
        while rest >= period:
            rest -= period
            period *= period_growth
        return anneal(1.0, min_factor, rest / period)

    return factor
