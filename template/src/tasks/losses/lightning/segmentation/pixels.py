"""Cross-entropy, Dice and focal loss of pixels, in PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from omegaconf import DictConfig

from src.kit.scenes import IGNORE


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., torch.Tensor]:
    """Return `loss(logits, true)`: float32 (B, K, H, W) against class maps uint8 (B, H, W), in which 255 is ignored."""
    rule = cfg.loss

    def loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        logits, known = logits.float(), true != IGNORE
        log_p = logits.log_softmax(dim=1)
        own = log_p.gather(1, true.long().masked_fill(~known, 0).unsqueeze(1)).squeeze(1)[known]  # of the true class
        if len(own) == 0:
            return 0.0 * logits.sum()
        # 1 - p, kept above 0, where a gamma below 1 has no slope
        focused = -((-torch.expm1(own)).clamp(min=1e-7) ** rule.gamma * own).mean()
        return rule.cross_entropy * -own.mean() + rule.focal * focused + rule.dice * dice(log_p.exp(), true, known)

    return loss


def dice(p: torch.Tensor, true: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 - twice the overlap over the sum of both areas, the mean over the classes that occur in the batch.

    Milletari et al. 2016, arXiv 1606.04797, with plain sums instead of squares.
    """
    known = known.unsqueeze(1)
    # not one_hot, whose int64 would take twice the memory of the logits
    share = torch.zeros_like(p).scatter_(1, true.long().unsqueeze(1).masked_fill(~known, 0), known.to(p.dtype))
    overlap, areas = (p * share).sum(dim=(0, 2, 3)), (p * known + share).sum(dim=(0, 2, 3))
    occurs = share.sum(dim=(0, 2, 3)) > 0
    return (1 - 2 * overlap[occurs] / areas[occurs]).mean()
