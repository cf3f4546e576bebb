"""The loss of YOLOv10's two heads in Paddle (Wang et al. 2024, arXiv 2405.14458, section 3.1)."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import paddle
from paddle.nn import functional

from src.kit.config import Range
from src.kit.detection_paddle import BINS, STRIDES, cell_centres, complete_iou, decode_boxes, flatten_levels, iou
from src.kit.scenes import OBJECT, check_heads

ALPHA, BETA = 0.5, 6.0  # exponents of score and overlap in the assignment
TINY = 1e-30
CELLS = (10, 1)  # assigned to each object: in the first head, and in the second, which makes the predictions


def build(
    class_counts: np.ndarray | None,
    *,
    box: Annotated[float, Range(min=0)] = 7.5,
    score: Annotated[float, Range(min=0)] = 0.5,
    distance: Annotated[float, Range(min=0)] = 1.5,
) -> Callable[..., paddle.Tensor]:
    """Return `loss((many, one), labels, boxes, kinds)`: both heads' outputs against the task's arrays, a scalar.

    Args:
        box: Weight of the overlap of predicted and true boxes.
        score: Weight of the class scores.
        distance: Weight of the distributions of the boxes' edges.
    """
    weights = (box, score, distance)
    classes = None if class_counts is None else len(class_counts)

    def loss(
        outputs: Sequence[Sequence[paddle.Tensor]], labels: paddle.Tensor, boxes: paddle.Tensor, kinds: paddle.Tensor
    ) -> paddle.Tensor:
        check_heads(outputs, len(STRIDES), 4 * BINS, classes)
        parts = [head_losses(levels, labels, boxes, kinds, count) for levels, count in zip(outputs, CELLS, strict=True)]
        return sum(weight * part for losses in parts for weight, part in zip(weights, losses, strict=True))

    return loss


def head_losses(
    levels: Sequence[paddle.Tensor], labels: paddle.Tensor, boxes: paddle.Tensor, kinds: paddle.Tensor, count: int
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Return the losses of boxes, scores and distances, each weighted by how well a cell fits its object."""
    bins, logits = flatten_levels(levels)
    bins, logits = bins.astype("float32"), logits.astype("float32")
    points, strides = cell_centres(levels)
    predicted = decode_boxes(bins, points, strides)
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
    """Return the cross-entropy (P,) of bins (P, 4, 16) with the two bins around each of `distances` (P, 4), in cells.

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


def assign(
    scores: paddle.Tensor,
    boxes: paddle.Tensor,
    points: paddle.Tensor,
    true_labels: paddle.Tensor,
    true_boxes: paddle.Tensor,
    valid: paddle.Tensor,
    count: int,
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Assign to each object the `count` cells inside its box whose predictions fit it best.

    Task-aligned assignment (Feng et al. 2021, arXiv 2108.07755, section 3.2).

    Args:
        scores: float32 (B, A, K) predicted class scores in 0..1 of A cells.
        boxes: float32 (B, A, 4) predicted boxes, x1, y1, x2, y2 in pixels.
        points: float32 (A, 2) the cells' centres in pixels.
        true_labels, true_boxes, valid: int64 (B, M), float32 (B, M, 4) and bool (B, M) objects, padded to M.

    Returns:
        int64 (B, A) the object of each cell, -1 for background, and float32 (B, A) the target score: 0 for background,
        for the best cell of an object its overlap with it.
    """
    batch, cells = scores.shape[:2]
    objects = true_labels.shape[1]
    if objects == 0:
        return paddle.full([batch, cells], -1, "int64"), paddle.zeros([batch, cells])
    classes = true_labels.unsqueeze(1).expand([batch, cells, objects])
    score = paddle.take_along_axis(scores, classes, 2).transpose([0, 2, 1])  # (B, M, A)
    overlap = iou(true_boxes.unsqueeze(2), boxes.unsqueeze(1))  # (B, M, A)
    left_top = points - true_boxes[:, :, :2].unsqueeze(2)
    right_bottom = true_boxes[:, :, 2:].unsqueeze(2) - points
    inside = paddle.concat([left_top, right_bottom], axis=-1).min(axis=-1) > 0
    allowed = paddle.logical_and(inside, valid.unsqueeze(2))
    fit = score**ALPHA * overlap**BETA * allowed.astype("float32")
    best = fit.topk(min(count, cells), axis=2)[1]
    marked = paddle.put_along_axis(paddle.zeros_like(fit), best, 1.0, 2)
    chosen = paddle.logical_and(marked > 0, allowed)
    # a cell chosen by several objects goes to the one it overlaps most
    owner = paddle.where(chosen, overlap, paddle.full_like(overlap, -1.0)).argmax(axis=1)  # (B, A)
    taken = chosen.any(axis=1)
    only = functional.one_hot(owner, objects).transpose([0, 2, 1])
    kept = chosen.astype("float32") * only
    fit, overlap = fit * kept, overlap * kept
    # early in training the best fit is 1e-12 or less: a larger TINY would keep the object from being learned
    scale = overlap.max(axis=2, keepdim=True) / fit.max(axis=2, keepdim=True).clip(min=TINY)
    return paddle.where(taken, owner, paddle.full_like(owner, -1)), (fit * scale).max(axis=1)
