"""Lion (Chen et al. 2023, arXiv 2302.06675) in PyTorch."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch

from src.kit.config import Range


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a mean of the gradient; each operation takes a group of weights at once."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; `closure` computes loss and gradients."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            first, second = group["betas"]
            parameters = [each for each in group["params"] if each.grad is not None]
            if not parameters:
                continue
            gradients = [each.grad for each in parameters]
            for each in parameters:
                if not self.state[each]:
                    self.state[each]["mean"] = torch.zeros_like(each)
            means = [self.state[each]["mean"] for each in parameters]
            steps = torch._foreach_lerp(gradients, means, first)
            torch._foreach_sign_(steps)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, steps, alpha=-group["lr"])
            torch._foreach_lerp_(means, gradients, 1 - second)
        return loss


def build(
    parameters: Iterable[torch.nn.Parameter],
    *,
    fused: bool,
    lr: Annotated[float, Range(above=0)] = 0.0003,
    weight_decay: Annotated[float, Range(min=0)] = 0.1,
    betas: Annotated[tuple[float, float], Range(min=0, below=1)] = (0.9, 0.99),
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate, usually a tenth of AdamW's, as every step has the same size.
        weight_decay: Decoupled weight decay, usually ten times AdamW's.
        betas: Decay rates of the gradient's running mean, in the step and in the state.
    """
    return Lion(parameters, {"lr": lr, "weight_decay": weight_decay, "betas": betas})
