"""Lion (Chen et al. 2023, arXiv 2302.06675) in Paddle."""

from collections.abc import Iterable
from typing import Annotated, Any

import paddle

from src.kit.config import Range
from src.kit.paddle import StepOptimizer


class Lion(StepOptimizer):
    """Steps by the sign of a mean of the gradient."""

    def __init__(self, betas: tuple[float, float], **options: Any) -> None:
        self.betas = betas
        super().__init__(("mean",), **options)

    def update(self, parameter: paddle.Tensor, gradient: paddle.Tensor, lr: float) -> paddle.Tensor:
        """The step, before weight decay."""
        mean, (first, second) = self.state("mean", parameter), self.betas
        step = lr * paddle.sign(first * mean + (1 - first) * gradient)
        paddle.assign(second * mean + (1 - second) * gradient, mean)
        return step


def build(
    parameters: Iterable[Any],
    *,
    grad_clip: Any,
    lr: Annotated[float, Range(above=0)] = 0.0003,
    weight_decay: Annotated[float, Range(min=0)] = 0.1,
    betas: Annotated[tuple[float, float], Range(min=0, below=1)] = (0.9, 0.99),
) -> paddle.optimizer.Optimizer:
    """Return the optimizer; the kit sets `grad_clip`.

    Args:
        lr: Peak learning rate, usually a tenth of AdamW's, as every step has the same size.
        weight_decay: Decoupled weight decay, usually ten times AdamW's.
        betas: Decay rates of the gradient's running mean, in the step and in the state.
    """
    return Lion((betas[0], betas[1]), lr=lr, parameters=parameters, weight_decay=weight_decay, grad_clip=grad_clip)
