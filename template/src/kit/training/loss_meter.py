"""The losses of an epoch, left on the device while the training goes on and fetched together now and then."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from src.kit.config import UserError


class LossMeter:
    """Mean of an epoch's losses; fetching each one at once would make the CPU wait for the GPU every step."""

    def __init__(self, to_floats: Callable[[Sequence[Any]], list[float]]) -> None:
        """`to_floats` fetches a list of scalar tensors at once."""
        self.to_floats = to_floats
        self.pending: list[Any] = []
        self.start()

    def start(self) -> None:
        """Begin an epoch."""
        self.total, self.count = 0.0, 0

    def fetch(self, where: str, lr: float) -> list[float]:
        """The losses since the last fetch, which from now on count for the mean.

        Raises:
            UserError: one of them is not finite; `where` and the learning rate `lr` are for its text.
        """
        fetched, self.pending = self.to_floats(self.pending) if self.pending else [], []
        for value in fetched:
            if not math.isfinite(value):
                raise UserError(
                    f"The loss became {value} in the {len(fetched)} batches before {where}: lower optimizer.lr={lr:g}, "
                    "set trainer.gradient_clip_val=1.0, or use trainer.precision=32-true."
                )
        self.total, self.count = self.total + sum(fetched), self.count + len(fetched)
        return fetched

    def mean(self) -> float:
        """Of all losses of the epoch that were fetched."""
        return self.total / self.count

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on within the epoch."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.total, self.count = state["total"], state["count"]
