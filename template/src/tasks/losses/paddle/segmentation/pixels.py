"""Cross-entropy, Dice and focal loss of pixels, in Paddle."""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import paddle
from paddle.nn import functional

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
) -> Callable[..., paddle.Tensor]:
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
    weights = None if chosen is None else paddle.to_tensor(chosen)

    def loss(logits: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
        check_outputs(logits, classes, *true.shape[1:])
        true = true.astype("int64")
        known = (true != IGNORE).astype("float32")
        log_p = functional.log_softmax(logits.astype("float32"), axis=1)
        share = functional.one_hot(true * known.astype("int64"), logits.shape[1]).transpose([0, 3, 1, 2])
        own = (log_p * share).sum(axis=1)  # of the true class
        counts = known if weights is None else known * weights[true * known.astype("int64")]  # how much each one counts
        # 1 - p, kept above 0: there the power with gamma < 1 has an infinite slope
        cost = -(cross_entropy + focal * (-paddle.expm1(own)).clip(min=1e-7) ** gamma) * own
        pixels = (counts * cost).sum() / counts.sum().clip(min=1e-7)
        overlap = dice_loss(log_p.exp(), share * known.unsqueeze(1), known)
        return pixels + dice * overlap

    return loss


def dice_loss(p: paddle.Tensor, share: paddle.Tensor, known: paddle.Tensor) -> paddle.Tensor:
    """Return 1 - 2 * overlap / (sum of both areas), averaged over the classes that occur in the batch.

    Milletari et al. 2016, arXiv 1606.04797, with plain sums instead of squares.
    """
    overlap, areas = (p * share).sum(axis=(0, 2, 3)), (p * known.unsqueeze(1) + share).sum(axis=(0, 2, 3))
    occurs = (share.sum(axis=(0, 2, 3)) > 0).astype("float32")
    return ((1 - 2 * overlap / areas.clip(min=1e-7)) * occurs).sum() / occurs.sum().clip(min=1)
