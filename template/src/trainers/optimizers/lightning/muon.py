"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) in PyTorch; AdamW for what is no hidden matrix.

Each matrix's step is its momentum with all singular values near 1. Convolutions count as matrices (out, in x height x
width). Biases, norms and the last layer take AdamW with a learning rate of its own, as the authors advise.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch

from src.kit.config import Range
from src.kit.training import NEWTON_SCHULZ

BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW


class Muon(torch.optim.Optimizer):
    """Groups with `muon` true hold matrices, the others what AdamW trains; each operation takes a group at once."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; `closure` computes loss and gradients."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if parameters:
                update = self.muon if group["muon"] else self.adam
                steps = update(parameters, [each.grad for each in parameters], group)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, steps, alpha=-group["lr"])
        return loss

    def states(self, name: str, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """A state of each parameter, zeros at first."""
        for each in parameters:
            if name not in self.state[each]:
                self.state[each][name] = torch.zeros_like(each)
        return [self.state[each][name] for each in parameters]

    def muon(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], group: dict[str, Any]
    ) -> list[torch.Tensor]:
        """Nesterov momentum, orthogonalised; scaled so that tall matrices take steps of the same size."""
        means = self.states("mean", parameters)
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        steps = [each.flatten(1) for each in torch._foreach_lerp(gradients, means, group["momentum"])]
        alike: dict[torch.Size, list[int]] = {}
        for number, matrix in enumerate(steps):
            alike.setdefault(matrix.shape, []).append(number)
        for (rows, columns), numbers in alike.items():
            updates = orthogonalize(torch.stack([steps[number] for number in numbers]))
            updates *= max(1.0, rows / columns) ** 0.5
            for number, update in zip(numbers, updates, strict=True):
                steps[number] = update.view_as(gradients[number])
        return steps

    def adam(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], group: dict[str, Any]
    ) -> list[torch.Tensor]:
        """AdamW's step."""
        means, squares = self.states("mean", parameters), self.states("square", parameters)
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_mul_(squares, BETAS[1])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - BETAS[1])
        for each in parameters:
            self.state[each]["steps"] = self.state[each].get("steps", 0) + 1
        counts = [self.state[each]["steps"] for each in parameters]
        divisors = torch._foreach_div(squares, [1 - BETAS[1] ** count for count in counts])
        torch._foreach_sqrt_(divisors)
        torch._foreach_add_(divisors, EPSILON)
        steps = torch._foreach_div(means, [1 - BETAS[0] ** count for count in counts])
        torch._foreach_div_(steps, divisors)
        return list(steps)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Float32 (B, M, N): the same singular vectors, with singular values near 1."""
    wide = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = wide.mT if (tall := matrices.shape[1] > matrices.shape[2]) else wide
    a, b, c = NEWTON_SCHULZ
    for _ in range(5):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


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
