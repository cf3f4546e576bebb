"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in Paddle; AdamW for what is no hidden matrix.

Each matrix's step is its momentum with all singular values near 1. Convolutions count as matrices (out, in x height x
width). Biases, norms and the last layer take AdamW with a learning rate of its own, as the authors advise.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import paddle

from src.kit.config import Range
from src.kit.paddle import StepOptimizer
from src.kit.training import NEWTON_SCHULZ

BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW


class Muon(StepOptimizer):
    """Hidden matrices take Muon's step, the rest AdamW's."""

    def __init__(self, ratio: float, momentum: float, parameters: Iterable[Any], **options: Any) -> None:
        """`ratio` is AdamW's learning rate, as a multiple of Muon's."""
        self.ratio, self.momentum = ratio, momentum
        listed = list(parameters)
        names = [each.name for each in listed if each.ndim > 1]
        self.hidden = set(names[:-1])
        super().__init__(("mean", "square", "steps"), parameters=listed, **options)

    def lr_factor(self, parameter: paddle.Tensor) -> float:
        return 1.0 if parameter.name in self.hidden else self.ratio

    def update(self, parameter: paddle.Tensor, gradient: paddle.Tensor, lr: float) -> paddle.Tensor:
        """The step, before weight decay."""
        return lr * (self.muon if parameter.name in self.hidden else self.adam)(parameter, gradient)

    def muon(self, parameter: paddle.Tensor, gradient: paddle.Tensor) -> paddle.Tensor:
        """Nesterov momentum, orthogonalised; scaled so that tall matrices take steps of the same size."""
        mean = self.state("mean", parameter)
        paddle.assign(mean + (1 - self.momentum) * (gradient - mean), mean)
        matrix = gradient + self.momentum * (mean - gradient)
        # Paddle's linear layers are (in, out), convolutions (out, in, height, width)
        rows = matrix.T if matrix.ndim == 2 else matrix.flatten(1)
        step = orthogonalize(rows) * max(1.0, rows.shape[0] / rows.shape[1]) ** 0.5
        return step.T if matrix.ndim == 2 else step.reshape(matrix.shape)

    def adam(self, parameter: paddle.Tensor, gradient: paddle.Tensor) -> paddle.Tensor:
        """AdamW's step."""
        mean, square, steps = (self.state(name, parameter) for name in ("mean", "square", "steps"))
        paddle.assign(mean + (1 - BETAS[0]) * (gradient - mean), mean)
        paddle.assign(square + (1 - BETAS[1]) * (gradient.square() - square), square)
        paddle.assign(steps + 1, steps)
        corrected = (square / (1 - BETAS[1] ** steps)).sqrt() + EPSILON
        return mean / (1 - BETAS[0] ** steps) / corrected


def orthogonalize(matrix: paddle.Tensor) -> paddle.Tensor:
    """Float32 (M, N): the same singular vectors, with singular values near 1."""
    wide = matrix / (matrix.norm() + 1e-7)
    wide = wide.T if (tall := matrix.shape[0] > matrix.shape[1]) else wide
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.T if tall else wide


def build(
    parameters: Iterable[Any],
    *,
    grad_clip: Any,
    lr: Annotated[float, Range(above=0)] = 0.02,
    adam_lr: Annotated[float, Range(above=0)] = 0.003,
    weight_decay: Annotated[float, Range(min=0)] = 0.01,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.95,
) -> paddle.optimizer.Optimizer:
    """Return the optimizer; the kit sets `grad_clip`.

    Args:
        lr: Peak learning rate of the hidden matrices.
        adam_lr: Peak learning rate of biases, norms and the last layer; it follows the same schedule.
        weight_decay: Decoupled weight decay.
        momentum: Decay rate of the running mean of the gradient.
    """
    common = {"weight_decay": weight_decay, "grad_clip": grad_clip}
    return Muon(adam_lr / lr, momentum, parameters, lr=lr, **common)
