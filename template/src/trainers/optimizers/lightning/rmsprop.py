"""RMSProp (Hinton 2012, lecture 6e of Neural Networks for Machine Learning) in PyTorch."""

from collections.abc import Iterable
from typing import Annotated

import torch

from src.kit.config import Range


def build(
    parameters: Iterable[torch.nn.Parameter],
    *,
    fused: bool,
    lr: Annotated[float, Range(above=0)] = 0.001,
    weight_decay: Annotated[float, Range(min=0)] = 0.0,
    alpha: Annotated[float, Range(min=0, below=1)] = 0.99,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate.
        weight_decay: L2 penalty of the weights.
        alpha: Decay rate of the running mean of the squared gradient.
        momentum: Decay rate of the running mean of the steps.
    """
    return torch.optim.RMSprop(parameters, lr, alpha, 1e-8, weight_decay, momentum)
