"""Lower the learning rate when the validation loss stalls."""

import math
from typing import Annotated

from src.kit.config import Range


class Plateau:
    """A constant factor, multiplied by `factor` after more than `patience` epochs without a lower loss."""

    def __init__(self, factor: float, patience: int, min_factor: float) -> None:
        self.factor, self.patience, self.min_factor = factor, patience, min_factor
        self.current, self.best_loss, self.stalled = 1.0, math.inf, 0

    def __call__(self, step: float) -> float:
        return self.current

    def epoch_end(self, loss: float) -> None:
        """Lower the factor if the loss has stalled for too long."""
        self.stalled = 0 if loss < self.best_loss else self.stalled + 1
        self.best_loss = min(self.best_loss, loss)
        if self.stalled > self.patience:
            self.current, self.stalled = max(self.current * self.factor, self.min_factor), 0

    def state_dict(self) -> dict[str, float]:
        """Return the state for a checkpoint."""
        return {"current": self.current, "best_loss": self.best_loss, "stalled": self.stalled}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state from a checkpoint."""
        self.current, self.best_loss, self.stalled = state["current"], state["best_loss"], int(state["stalled"])


def build(
    *,
    total_steps: int,
    steps_per_epoch: int,
    factor: Annotated[float, Range(above=0, below=1)] = 0.1,
    patience: Annotated[int, Range(min=0)] = 5,
    min_factor: Annotated[float, Range(min=0, max=1)] = 0.0,
) -> Plateau:
    """Return the schedule, which also receives each epoch's validation loss.

    Args:
        factor: Multiply the learning rate by this when the validation loss stalls.
        patience: Epochs without a lower validation loss before that.
        min_factor: Lowest learning rate as a fraction of optimizer.lr.
    """
    return Plateau(factor, patience, min_factor)
