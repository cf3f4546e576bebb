"""The optimizer that `cfg.optimizer` describes, in Paddle."""

import paddle
from omegaconf import DictConfig


def build_optimizer(cfg: DictConfig, network: paddle.nn.Layer) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) or SGD with momentum, with gradient clipping."""
    rule, keys = cfg.optimizer, cfg.trainer
    clip = None
    if keys.gradient_clip_val and keys.gradient_clip_algorithm == "norm":
        clip = paddle.nn.ClipGradByGlobalNorm(keys.gradient_clip_val)
    elif keys.gradient_clip_val:
        clip = paddle.nn.ClipGradByValue(keys.gradient_clip_val)
    common = {
        "learning_rate": rule.lr,
        "parameters": network.parameters(),
        "weight_decay": rule.weight_decay,
        "grad_clip": clip,
    }
    if rule.name == "adamw":
        return paddle.optimizer.AdamW(beta1=rule.betas[0], beta2=rule.betas[1], **common)
    return paddle.optimizer.Momentum(momentum=rule.momentum, use_nesterov=rule.nesterov, **common)
