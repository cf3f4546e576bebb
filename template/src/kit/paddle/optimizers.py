"""Build the optimizer of a network, and what optimizers of your own derive from."""

from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig

import paddle
from src.kit.config import build_component
from src.kit.paddle.sharding import STAGES, Part
from src.kit.training import parameter_groups


def build_optimizer(
    cfg: DictConfig, network: paddle.nn.Layer, rank: int = 0, ranks: int = 1
) -> paddle.optimizer.Optimizer:
    """Build `cfg.optimizer` for a network's parameters; of several `ranks` each may keep a part of its state.

    The component's `build(parameters, *, grad_clip, ...)` gets the parameters (`is_decayed` says which take part in
    weight decay) and what `trainer.gradient_clip_val` asks for, or None.
    """
    keys, clip, part = cfg.trainer, None, None
    if keys.gradient_clip_val and keys.gradient_clip_algorithm == "norm":
        clip = paddle.nn.ClipGradByGlobalNorm(keys.gradient_clip_val)
    elif keys.gradient_clip_val:
        clip = paddle.nn.ClipGradByValue(keys.gradient_clip_val)
    trained = [(name, each) for name, each in network.named_parameters() if not each.stop_gradient]
    # not Paddle's groups, which would be clipped one by one
    for group in parameter_groups(cfg.optimizer, trained):
        for each in group["params"]:
            each.optimize_attr["learning_rate"] = group["lr_scale"]  # Paddle multiplies
            each.decayed = "weight_decay" not in group
    weights = [each for _, each in trained]
    if keys.strategy in STAGES and ranks > 1:
        clip = part = Part(weights, clip, rank, ranks, STAGES[keys.strategy])
    optimizer: paddle.optimizer.Optimizer = build_component(
        "optimizer", cfg.optimizer, "paddle", weights, grad_clip=clip
    )
    # what decays the weights itself asks `is_decayed`, and Paddle would add 0 times the weight to its gradient
    decoupled = isinstance(optimizer, paddle.optimizer.AdamW | StepOptimizer)
    for each in weights:
        each.regularizer = None if decoupled or is_decayed(each) else paddle.regularizer.L2Decay(0.0)
    if part:
        part.attach(optimizer)
    return optimizer


def is_decayed(parameter: Any) -> bool:
    """Whether weight decay applies to a parameter that `build_optimizer` has seen."""
    return bool(getattr(parameter, "decayed", True))


class StepOptimizer(paddle.optimizer.Optimizer):
    """An optimizer of one formula: subclasses compute `update`; decoupled weight decay and state are done here."""

    def __init__(
        self, states: Sequence[str], lr: float, parameters: Iterable[Any], weight_decay: float, grad_clip: Any
    ) -> None:
        """`states` are the names of the tensors kept for each parameter; those called "steps" are scalars."""
        self.states, self.decay = states, weight_decay
        super().__init__(lr, list(parameters), grad_clip=grad_clip)

    def update(self, parameter: paddle.Tensor, gradient: paddle.Tensor, lr: float) -> paddle.Tensor:
        """The step to subtract, at the learning rate `lr`, before weight decay."""
        raise NotImplementedError

    def lr_factor(self, parameter: paddle.Tensor) -> float:
        """The parameter's learning rate as a multiple of the optimizer's."""
        return 1.0

    def state(self, name: str, parameter: paddle.Tensor) -> paddle.Tensor:
        """A tensor kept for the parameter."""
        return self._get_accumulator(name, parameter)

    def _create_accumulators(self, block: Any, parameters: Any) -> None:
        plain = parameters["params"] if isinstance(parameters, dict) else parameters
        for parameter in plain:
            for name in self.states:
                self._add_accumulator(name, parameter, shape=[1] if name == "steps" else None)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> None:
        parameter, gradient = param_and_grad["params"] if isinstance(param_and_grad, dict) else param_and_grad
        lr = self.get_lr() * float(parameter.optimize_attr["learning_rate"]) * self.lr_factor(parameter)
        with paddle.no_grad():
            decay = self.decay if is_decayed(parameter) else 0.0
            step = self.update(parameter, gradient, lr)
            paddle.assign(parameter * (1 - lr * decay) - step, parameter)
