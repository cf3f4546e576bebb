"""The loss of networks that compute their own, such as Mask R-CNN: they are given the objects in training."""

from collections.abc import Callable
from typing import Any

import numpy as np
from omegaconf import DictConfig


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., Any]:
    """Return `loss(outputs, *arrays)`, the sum of the network's losses, a tensor of either framework."""
    return lambda outputs, *arrays: outputs.sum()
