"""Linear decay, usually after a linear warm-up (`scheduler.warmup_epochs`)."""

from collections.abc import Callable
from typing import Annotated

from src.kit.config import Range


def build(
    *, total_steps: int, steps_per_epoch: int, min_factor: Annotated[float, Range(min=0, max=1)] = 0.0
) -> Callable[[float], float]:
    """Return factor(step): from 1 down to `min_factor` in a straight line.

    Args:
        min_factor: Final learning rate as a fraction of optimizer.lr.
    """
    return lambda step: 1 - (1 - min_factor) * min(step / max(total_steps, 1), 1.0)
