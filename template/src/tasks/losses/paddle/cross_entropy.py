"""Cross-entropy and focal loss with label smoothing and class weights, in Paddle."""

from typing import Annotated, Literal

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from src.kit.config import Range
from src.kit.training import check_outputs, weigh_classes


class ClassificationLoss(nn.Layer):
    """Mean of `-w_k t_k (1 - p_k)^gamma log p_k` over the samples, each of which counts by its target's weight.

    p is the softmax of the logits (B, K), t the smoothed targets (Szegedy et al. 2016, arXiv 1512.00567), w the weights
    of the classes. With gamma 0 this is cross-entropy, else the focal loss, to which confident samples contribute
    little (Lin et al. 2017, arXiv 1708.02002).
    """

    def __init__(self, smoothing: float, weights: np.ndarray | None, gamma: float, classes: int | None) -> None:
        super().__init__()
        self.smoothing, self.gamma, self.classes = smoothing, gamma, classes
        self.weights = None if weights is None else paddle.to_tensor(weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compare logits (B, K) with classes int64 (B,), or with class probabilities float32 (B, K)."""
        check_outputs(logits, self.classes)
        soft, classes = targets.ndim == 2, logits.shape[1]
        if self.gamma == 0 and self.weights is None:
            return F.cross_entropy(logits, targets, soft_label=soft, label_smoothing=self.smoothing)
        shares = targets if soft else F.one_hot(targets, classes)
        log_p = F.log_softmax(logits.astype("float32"), axis=1)
        # 1 - p, kept above 0: there the power with gamma < 1 has an infinite slope
        cost = -log_p if self.gamma == 0 else -((-paddle.expm1(log_p)).clip(min=1e-7) ** self.gamma) * log_p
        cost = cost * (shares * (1 - self.smoothing) + self.smoothing / classes)
        if self.weights is None:
            return cost.sum(axis=1).mean()
        return (cost * self.weights).sum() / (shares * self.weights).sum()


def build(
    class_counts: np.ndarray | None,
    *,
    label_smoothing: Annotated[float, Range(min=0, below=1)] = 0.0,
    class_weights: Literal["none", "balanced", "effective"] = "none",
    beta: Annotated[float, Range(min=0, below=1)] = 0.999,
    gamma: Annotated[float, Range(min=0)] = 0.0,
) -> nn.Layer:
    """Return `loss(logits, targets)`, a scalar; `class_counts` int64 (K,) are the training samples of each class.

    Args:
        label_smoothing: Probability spread evenly over all classes; 0.1 is usual.
        class_weights: Weight of the errors of rare classes.
        beta: For class_weights=effective: 1 / (1 - beta) is the largest weight of a class.
        gamma: Focal loss: how much less confident answers count; 2 is usual, 0 is cross-entropy.
    """
    weights = weigh_classes(class_weights, class_counts, beta)
    return ClassificationLoss(label_smoothing, weights, gamma, None if class_counts is None else len(class_counts))
