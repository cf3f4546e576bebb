"""Stochastic gradient descent with momentum in Paddle."""

from collections.abc import Iterable
from typing import Annotated, Any

import paddle

from src.kit.config import Range, UserError


def build(
    parameters: Iterable[paddle.Tensor],
    *,
    grad_clip: Any,
    lr: Annotated[float, Range(above=0)] = 0.1,
    weight_decay: Annotated[float, Range(min=0)] = 0.0005,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.9,
    nesterov: bool = True,
) -> paddle.optimizer.Optimizer:
    """Return the optimizer; the kit sets `grad_clip`.

    Args:
        lr: Peak learning rate.
        weight_decay: L2 penalty of the weights.
        momentum: Decay rate of the running mean of the gradient.
        nesterov: Use Nesterov momentum; needs momentum above 0.
    """
    if nesterov and not momentum:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0: set optimizer.nesterov=false.")
    return paddle.optimizer.Momentum(lr, momentum, parameters, nesterov, weight_decay, grad_clip)
