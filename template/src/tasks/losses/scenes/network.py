"""The loss of networks that compute their own, such as Mask R-CNN, in both frameworks.

Networks with `takes_targets = True` also receive the targets in training and return their losses.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from src.kit.config import UserError


def build(class_counts: np.ndarray | None) -> Callable[..., Any]:
    """Return `loss(outputs, *arrays)`, the sum of the network's losses, a tensor of either framework."""

    def loss(outputs: Any, *arrays: Any) -> Any:
        if not hasattr(outputs, "sum"):
            kind = type(outputs).__name__
            raise UserError(f"The network has to return its losses in one tensor, not in a {kind}: stack them.")
        return outputs.sum()

    return loss
