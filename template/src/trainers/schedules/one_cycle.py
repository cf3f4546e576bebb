"""One cycle of the learning rate (Smith 2018, arXiv 1803.09820)."""

from collections.abc import Callable
from typing import Annotated

from src.kit.config import Range
from src.kit.training import anneal


def build(
    *,
    total_steps: int,
    steps_per_epoch: int,
    rise_fraction: Annotated[float, Range(above=0, below=1)] = 0.3,
    start_factor: Annotated[float, Range(above=0, max=1)] = 0.04,
    end_factor: Annotated[float, Range(min=0, max=1)] = 0.0001,
) -> Callable[[float], float]:
    """Return factor(step): up from `start_factor` to 1, then down to `end_factor`, each along half a cosine.

    Args:
        rise_fraction: Share of the run in which the learning rate rises.
        start_factor: First learning rate as a fraction of optimizer.lr.
        end_factor: Last learning rate as a fraction of optimizer.lr.
    """
    peak = rise_fraction * total_steps

    def factor(step: float) -> float:
        if step < peak:
            return anneal(start_factor, 1.0, step / peak)
        return anneal(1.0, end_factor, (step - peak) / max(total_steps - peak, 1))

    return factor
