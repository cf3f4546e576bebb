"""Build the optimizer that the configuration names, in Paddle."""

from omegaconf import DictConfig

import paddle
from src.kit.config import build_component


def build_optimizer(cfg: DictConfig, network: paddle.nn.Layer) -> paddle.optimizer.Optimizer:
    """Build `cfg.optimizer` for a network's parameters.

    The component's `build(parameters, *, grad_clip, ...)` gets what `trainer.gradient_clip_val` asks for, or None.
    """
    keys, clip = cfg.trainer, None
    if keys.gradient_clip_val and keys.gradient_clip_algorithm == "norm":
        clip = paddle.nn.ClipGradByGlobalNorm(keys.gradient_clip_val)
    elif keys.gradient_clip_val:
        clip = paddle.nn.ClipGradByValue(keys.gradient_clip_val)
    return build_component("optimizer", cfg.optimizer, "paddle", network.parameters(), grad_clip=clip)
