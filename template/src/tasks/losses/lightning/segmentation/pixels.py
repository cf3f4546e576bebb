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
        nonlocal weights
        check_outputs(logits, classes, *true.shape[1:])
        known = (true != IGNORE).float()
        log_p = logits.float().log_softmax(dim=1)
        # comparing sorts nothing: where results must repeat, a GPU gathers and scatters by sorting all pixels
        kinds = torch.arange(logits.shape[1], dtype=true.dtype, device=true.device)[:, None, None]
        occupied = true.unsqueeze(1) == kinds  # (B, K, H, W); ignored pixels have no class
        own = torch.where(occupied, log_p, 0.0).sum(dim=1)  # of the true class
        scale: torch.Tensor | float = cross_entropy
        if focal:  # 1 - p, kept above 0: there the power with gamma < 1 has an infinite slope
            scale = cross_entropy + focal * (-torch.expm1(own)).clamp(min=1e-7) ** gamma
        if weights is None:
            pixels = -(scale * own).sum() / known.sum().clamp(min=1)
        else:
            weights = weights.to(logits.device)  # once
            counts = weights[(true * known).long()] * known  # how much each pixel counts
            pixels = -(counts * scale * own).sum() / counts.sum().clamp(min=1e-7)
        return pixels + dice * dice_loss(log_p.exp(), occupied, known) if dice else pixels

    return loss


def dice_loss(p: torch.Tensor, occupied: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return 1 - 2 * overlap / (sum of both areas), averaged over the classes that occur in the batch.

    Milletari et al. 2016, arXiv 1606.04797, with plain sums instead of squares.
    """
    axes = (0, 2, 3)
    overlap, true = torch.where(occupied, p, 0.0).sum(dim=axes), occupied.sum(dim=axes)
    areas, occurs = (p * known.unsqueeze(1)).sum(dim=axes) + true, true > 0
    return ((1 - 2 * overlap / areas.clamp(min=1e-7)) * occurs).sum() / occurs.sum().clamp(min=1)
