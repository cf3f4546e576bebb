"""Stochastic gradient descent with momentum in PyTorch."""

from collections.abc import Iterable
from typing import Annotated

import torch

from src.kit.config import Range, UserError


def build(
    parameters: Iterable[torch.nn.Parameter],
    *,
    fused: bool,
    lr: Annotated[float, Range(above=0)] = 0.1,
    weight_decay: Annotated[float, Range(min=0)] = 0.0005,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate.
        weight_decay: L2 penalty of the weights.
        momentum: Decay rate of the running mean of the gradient.
        nesterov: Use Nesterov momentum; needs momentum above 0.
    """
    if nesterov and not momentum:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0: set optimizer.nesterov=false.")
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused or None)
