"""RMSProp (Hinton 2012, lecture 6e of Neural Networks for Machine Learning) in Paddle."""

from collections.abc import Iterable
from typing import Annotated, Any

import paddle

from src.kit.config import Range


def build(
    parameters: Iterable[paddle.Tensor],
    *,
    grad_clip: Any,
    lr: Annotated[float, Range(above=0)] = 0.001,
    weight_decay: Annotated[float, Range(min=0)] = 0.0,
    alpha: Annotated[float, Range(min=0, below=1)] = 0.99,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> paddle.optimizer.Optimizer:
    """Return the optimizer; the kit sets `grad_clip`.

    Args:
        lr: Peak learning rate.
        weight_decay: L2 penalty of the weights.
        alpha: Decay rate of the running mean of the squared gradient.
        momentum: Decay rate of the running mean of the steps.
    """
    # Paddle adds epsilon below the root, PyTorch beside it
    return paddle.optimizer.RMSProp(lr, alpha, 1e-16, momentum, False, parameters, weight_decay, grad_clip)
