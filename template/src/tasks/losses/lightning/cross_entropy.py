"""Cross-entropy and focal loss with label smoothing and class weights, in PyTorch."""

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from src.kit.training import class_weights, focal_gamma, label_smoothing


class ClassificationLoss(nn.Module):
    """Mean of `-w_k t_k (1 - p_k)^gamma log p_k` over the samples, each of which counts by its target's weight.

    p are the logits' softmax (B, K), t the targets, smoothed (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567),
    and w the classes' weights. Without a gamma this is cross-entropy; with one, the focal loss, to which samples that
    are already sure contribute little (Lin et al., 2017, https://arxiv.org/abs/1708.02002).
    """

    def __init__(self, smoothing: float, weights: np.ndarray | None, gamma: float) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma
        self.weights = None if weights is None else torch.from_numpy(weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (B, K) against classes int64 (B,), or shares of classes float32 (B, K) that sum to 1."""
        if self.gamma == 0 and self.weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
        classes = logits.shape[1]
        shares = F.one_hot(targets, classes).float() if targets.ndim == 1 else targets
        log_p = F.log_softmax(logits.float(), dim=1)
        # 1 - p, kept above 0, where a gamma below 1 has no slope
        cost = -log_p if self.gamma == 0 else -((-torch.expm1(log_p)).clamp(min=1e-7) ** self.gamma) * log_p
        cost = cost * (shares * (1 - self.smoothing) + self.smoothing / classes)
        if self.weights is None:
            return cost.sum(dim=1).mean()
        self.weights = self.weights.to(logits.device)  # a GPU trains, but the CPU validates
        return (cost @ self.weights).sum() / (shares @ self.weights).sum()


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> nn.Module:
    """Return the loss that `cfg.loss` describes; `class_counts` int64 (K,) are the training samples of each class.

    Raises:
        UserError: a smoothing outside [0, 1) or a negative gamma.
    """
    return ClassificationLoss(label_smoothing(cfg), class_weights(cfg, class_counts), focal_gamma(cfg))
