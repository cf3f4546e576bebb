"""Cross-entropy with label smoothing, in PyTorch."""

from omegaconf import DictConfig
from torch import nn

from src.tasks.classification import label_smoothing


def build_loss(cfg: DictConfig) -> nn.Module:
    """Return the mean cross-entropy of logits (B, K) against class indices int64 (B,), smoothed by
    `cfg.loss.label_smoothing` (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567).

    Raises:
        UserError: the smoothing is outside [0, 1).
    """
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing(cfg))
