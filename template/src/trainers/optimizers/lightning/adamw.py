"""AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) and Adam (Kingma & Ba 2014, arXiv 1412.6980) in PyTorch."""

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
    decoupled: bool = True,
) -> torch.optim.Optimizer:
    """Return the optimizer; the kit sets `fused`.

    Args:
        lr: Peak learning rate.
        weight_decay: Weight decay.
        betas: Decay rates of the running means of the gradient and of its square.
        decoupled: Decay the weights themselves (AdamW); false adds the decay to the gradient (Adam).
    """
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(parameters, lr, (betas[0], betas[1]), weight_decay=weight_decay, fused=fused or None)
