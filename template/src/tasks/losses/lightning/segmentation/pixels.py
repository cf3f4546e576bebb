"""Cross-entropy, Dice and focal loss of pixels, in PyTorch."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch

from src.kit.config import Range
from src.kit.scenes import IGNORE
from src.kit.training import check_outputs, weigh_classes


def build(
    class_counts: np.ndarray | None,
    *,
    cross_entropy: Annotated[float, Range(min=0)] = 1.0,
    dice: Annotated[float, Range(min=0)] = 1.0,
    focal: Annotated[float, Range(min=0)] = 0.0,
    gamma: Annotated[float, Range(min=0)] = 2.0,
    class_weights: Literal["none", "balanced", "log"] = "none",
) -> Callable[..., torch.Tensor]:
    """Return `loss(logits, true)`: float32 (B, K, H, W) against class maps uint8 (B, H, W), in which 255 is ignored.

    Args:
        cross_entropy: Weight of the pixels' cross-entropy.
        dice: Weight of the Dice loss, the overlap of each class.
        focal: Weight of the pixels' focal loss.
        gamma: Focal loss: how much less confident pixels count.
        class_weights: Weight of the pixels of rare classes, in cross-entropy and focal loss.
    """
    classes = None if class_counts is None else len(class_counts)
    chosen = weigh_classes(class_weights, class_counts)
    weights = None if chosen is None else torch.from_numpy(chosen)

    def loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        check_outputs(logits, classes, *true.shape[1:])
        logits, known = logits.float(), true != IGNORE
        log_p = logits.log_softmax(dim=1)
        own = log_p.gather(1, true.long().masked_fill(~known, 0).unsqueeze(1)).squeeze(1)[known]  # of the true class
        if len(own) == 0:
            return 0.0 * logits.sum()
        # 1 - p, kept above 0: there the power with gamma < 1 has an infinite slope
        cost = -(cross_entropy + focal * (-torch.expm1(own)).clamp(min=1e-7) ** gamma) * own
        if weights is None:
            pixels = cost.mean()
        else:
            counts = weights.to(logits.device)[true[known].long()]  # how much each pixel counts
            pixels = (counts * cost).sum() / counts.sum()
        return pixels + dice * dice_loss(log_p.exp(), true, known)

    return loss


def dice_loss(p: torch.Tensor, true: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return 1 - 2 * overlap / (sum of both areas), averaged over the classes that occur in the batch.

    Milletari et al. 2016, arXiv 1606.04797, with plain sums instead of squares.
    """
    known = known.unsqueeze(1)
    # one_hot would take twice the memory of the logits: it is int64
    share = torch.zeros_like(p).scatter_(1, true.long().unsqueeze(1).masked_fill(~known, 0), known.to(p.dtype))
    overlap, areas = (p * share).sum(dim=(0, 2, 3)), (p * known + share).sum(dim=(0, 2, 3))
    occurs = share.sum(dim=(0, 2, 3)) > 0
    return (1 - 2 * overlap[occurs] / areas[occurs]).mean()
