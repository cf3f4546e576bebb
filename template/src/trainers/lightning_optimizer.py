"""The optimizer that `cfg.optimizer` describes, in PyTorch."""

import torch
from omegaconf import DictConfig


def build_optimizer(cfg: DictConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) or SGD with momentum; fused where possible."""
    rule = cfg.optimizer
    # a fused step unscales fp16 gradients by itself, after Lightning would have had to clip them
    common = {"lr": rule.lr, "weight_decay": rule.weight_decay, "fused": cfg.trainer.precision != "16-mixed"}
    if rule.name == "adamw":
        return torch.optim.AdamW(network.parameters(), betas=tuple(rule.betas), **common)
    return torch.optim.SGD(network.parameters(), momentum=rule.momentum, nesterov=rule.nesterov, **common)
