"""The loss of YOLOv10's two heads in Paddle (Wang et al. 2024, arXiv 2405.14458, section 3.1)."""

from collections.abc import Callable, Sequence

import numpy as np
import paddle
from omegaconf import DictConfig
from paddle.nn import functional

from src.kit.scenes import OBJECT
from src.models.paddle.detection.yolov10_head import BINS, centres, flatten, to_boxes
from src.tasks.losses.paddle.detection.assignment import assign, complete_iou

CELLS = (10, 1)  # that learn an object: in the head of many, and in the head of one, which predicts


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., paddle.Tensor]:
    """Return `loss((many, one), labels, boxes, kinds)`: both heads' outputs against the task's arrays, a scalar."""
    weights = (cfg.loss.box, cfg.loss.score, cfg.loss.distance)

    def loss(
        outputs: Sequence[Sequence[paddle.Tensor]], labels: paddle.Tensor, boxes: paddle.Tensor, kinds: paddle.Tensor
    ) -> paddle.Tensor:
        parts = [head_losses(levels, labels, boxes, kinds, count) for levels, count in zip(outputs, CELLS, strict=True)]
        return sum(weight * part for losses in parts for weight, part in zip(weights, losses, strict=True))

    return loss


def head_losses(
    levels: Sequence[paddle.Tensor], labels: paddle.Tensor, boxes: paddle.Tensor, kinds: paddle.Tensor, count: int
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Losses of the boxes, the scores and the distances' distributions, each weighted by how well a cell fits."""
    bins, logits = flatten(levels)
    bins, logits = bins.astype("float32"), logits.astype("float32")
    points, strides = centres(levels)
    predicted = to_boxes(bins, points, strides)
    with paddle.no_grad():
        owner, wanted = assign(functional.sigmoid(logits), predicted, points, labels, boxes, kinds == OBJECT, count)
    total = wanted.sum().clip(min=1)
    taken = owner >= 0
    if not taken.any():  # Paddle refuses to index with nothing
        score = functional.binary_cross_entropy_with_logits(logits, paddle.zeros_like(logits), reduction="sum")
        return 0.0 * bins.sum(), score / total, 0.0 * bins.sum()
    found = taken.nonzero()  # (P, 2): image and cell
    cell = found[:, 1]
    at = paddle.stack([found[:, 0], owner.gather_nd(found)], axis=1)  # (P, 2): image and object
    weight, true_boxes = wanted.gather_nd(found), boxes.gather_nd(at)
    classes = labels.gather_nd(at).unsqueeze(1)
    true_scores = paddle.scatter_nd(paddle.concat([found, classes], axis=1), weight, logits.shape)
    score = functional.binary_cross_entropy_with_logits(logits, true_scores, reduction="sum")
    box = ((1 - complete_iou(predicted.gather_nd(found), true_boxes)) * weight).sum()
    centre, stride = points.gather(cell), strides.gather(cell)
    true_distances = paddle.concat([centre - true_boxes[:, :2], true_boxes[:, 2:] - centre], axis=1) / stride
    distance = (distribution_loss(bins.gather_nd(found), true_distances) * weight).sum()
    return box / total, score / total, distance / total


def distribution_loss(bins: paddle.Tensor, distances: paddle.Tensor) -> paddle.Tensor:
    """Cross-entropy (P,) of bins (P, 4, 16) with the two bins around each of `distances` (P, 4), in cells.

    Distribution focal loss, Li et al. 2020, arXiv 2006.04388, equation 6.
    """
    distances = distances.clip(0, BINS - 1.01)
    lower = distances.floor()
    share = distances - lower
    log = functional.log_softmax(bins, axis=2)
    at = lower.astype("int64").unsqueeze(2)
    below = paddle.take_along_axis(log, at, 2).squeeze(2)
    above = paddle.take_along_axis(log, at + 1, 2).squeeze(2)
    return -(below * (1 - share) + above * share).mean(axis=1)
