"""AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) in PyTorch."""

from collections.abc import Iterable
from typing import Annotated

import torch

from src.kit.config import Range


def build(
    parameters: Iterable[torch.nn.Parameter],
    *,
    fused: bool,
    lr: Annotated[float, Range(above=0)] = 0.003,
    weight_decay: Annotated[float, Range(min=0)] = 0.01,
    betas: Annotated[tuple[float, float], Range(min=0, below=1)] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        betas: Decay rates of the running means of the gradient and of its square.
    """
    return torch.optim.AdamW(parameters, lr, (betas[0], betas[1]), weight_decay=weight_decay, fused=fused)
