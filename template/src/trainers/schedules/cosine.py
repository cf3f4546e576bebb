"""Cosine annealing (Loshchilov & Hutter 2016, arXiv 1608.03983), without restarts."""

from collections.abc import Callable
from typing import Annotated

from src.kit.config import Range
from src.kit.training import anneal


def build(
    *, total_steps: int, steps_per_epoch: int, min_factor: Annotated[float, Range(min=0, max=1)] = 0.0
) -> Callable[[float], float]:
    """Return factor(step): from 1 down to `min_factor` along half a cosine.

    Args:
        min_factor: Final learning rate as a fraction of optimizer.lr.
    """
    return lambda step: anneal(1.0, min_factor, step / max(total_steps, 1))
