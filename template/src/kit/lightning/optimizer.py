"""Build the optimizer that the configuration names, in PyTorch."""

import torch
from omegaconf import DictConfig

from src.kit.config import build_component


def build_optimizer(cfg: DictConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Build `cfg.optimizer` for a network's parameters; clipping is Lightning's.

    The component's `build(parameters, *, fused, ...)` gets `fused=True` unless gradients are scaled (fp16): a fused
    step unscales them itself, which is after Lightning would have to clip them.
    """
    fused = cfg.trainer.precision != "16-mixed"
    optimizer: torch.optim.Optimizer = build_component(
        "optimizer", cfg.optimizer, "lightning", network.parameters(), fused=fused
    )
    return optimizer
