"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in PyTorch; AdamW for what is no hidden matrix.

Each matrix's step is its momentum with all singular values near 1. Convolutions count as matrices (out, in x height x
width). Biases, norms and the last layer take AdamW with a learning rate of its own, as the authors advise.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch

from src.kit.config import Range
from src.kit.training import orthogonalize

BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW


class Muon(torch.optim.Optimizer):
    """Groups with `muon` true hold matrices, the others what AdamW trains."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; `closure` computes loss and gradients."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in (each for each in group["params"] if each.grad is not None):
                update = self.muon if group["muon"] else self.adam
                step = update(self.state[parameter], parameter.grad, group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"])
        return loss

    def muon(self, state: dict[str, Any], gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """Nesterov momentum, orthogonalised; scaled so that tall matrices take steps of the same size."""
        mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - group["momentum"])
        matrix = gradient.lerp(mean, group["momentum"]).flatten(1)
        scale: float = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        return (orthogonalize(matrix) * scale).view_as(gradient)

    def adam(self, state: dict[str, Any], gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """AdamW's step."""
        mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - BETAS[0])
        square = state.setdefault("square", torch.zeros_like(gradient)).lerp_(gradient.square(), 1 - BETAS[1])
        state["steps"] = steps = state.get("steps", 0) + 1
        return mean / (1 - BETAS[0] ** steps) / ((square / (1 - BETAS[1] ** steps)).sqrt() + EPSILON)


def build(
    parameters: Iterable[Any],
    *,
    fused: bool,
    lr: Annotated[float, Range(above=0)] = 0.02,
    adam_lr: Annotated[float, Range(above=0)] = 0.003,
    weight_decay: Annotated[float, Range(min=0)] = 0.01,
    momentum: Annotated[float, Range(min=0, below=1)] = 0.95,
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate of the hidden matrices.
        adam_lr: Peak learning rate of biases, norms and the last layer; it follows the same schedule.
        weight_decay: Decoupled weight decay.
        momentum: Decay rate of the running mean of the gradient.
    """
    groups: list[dict[str, Any]] = [group if isinstance(group, dict) else {"params": [group]} for group in parameters]
    matrices = [each for group in groups for each in group["params"] if each.ndim > 1]
    last, divided = matrices[-1] if matrices else None, []
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        hidden = [each for each in group["params"] if each.ndim > 1 and each is not last]
        others = [each for each in group["params"] if each.ndim < 2 or each is last]
        if hidden:
            divided.append({**group, "params": hidden, "muon": True, "lr": lr * scale})
        if others:
            ratio = scale * adam_lr / lr
            divided.append({**group, "params": others, "muon": False, "lr": lr * ratio, "lr_scale": ratio})
    return Muon(divided, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
