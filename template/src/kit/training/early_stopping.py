"""Stop when the monitored metric no longer improves."""

import math
from typing import Any


class EarlyStopping:
    """Counts the epochs since the score last rose; higher scores are better."""

    def __init__(self, patience: int | None, min_delta: float) -> None:
        """`patience` is how many epochs without a rise above `min_delta` are waited; None never stops."""
        self.patience, self.min_delta = patience, min_delta
        self.best, self.waited = -math.inf, 0

    def should_stop(self, score: float) -> bool:
        """Take note of an epoch's score."""
        rises = score > self.best + (self.min_delta if self.best > -math.inf else 0)
        self.waited = 0 if rises else self.waited + 1
        self.best = max(self.best, score)
        return self.patience is not None and self.waited >= max(self.patience, 1)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.waited = state["best"], state["waited"]
