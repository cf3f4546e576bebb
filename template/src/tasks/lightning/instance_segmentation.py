"""Mask R-CNN's losses come from the network itself, which is given the objects in training."""

from collections.abc import Callable

import numpy as np
import torch
from omegaconf import DictConfig


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., torch.Tensor]:
    """Return `loss(outputs, *arrays)`, the sum of the network's losses."""
    return lambda outputs, *arrays: outputs.sum()
