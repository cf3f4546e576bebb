"""The loss of YOLOv10's two heads in Paddle (Wang et al. 2024, arXiv 2405.14458, section 3.1)."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import paddle
from paddle import Tensor
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
) -> Callable[..., Tensor]:
    """Return `loss((many, one), labels, boxes, kinds)`: both heads' outputs against the task's arrays, a scalar.

    Args:
        box: Weight of the overlap of predicted and true boxes.
        score: Weight of the class scores.
        distance: Weight of the distributions of the boxes' edges.
    """
    weights = (box, score, distance)
    classes = None if class_counts is None else len(class_counts)

    def loss(outputs: Sequence[Sequence[Tensor]], labels: Tensor, boxes: Tensor, kinds: Tensor) -> Tensor:
        check_heads(outputs, len(STRIDES), 4 * BINS, classes)
        both = [paddle.concat(list(levels)) for levels in zip(*outputs, strict=True)]  # one batch (2 B, 64 + K, H, W)
        labels, boxes, kinds = (paddle.concat([each, each]) for each in (labels, boxes, kinds))
        parts = head_losses(both, labels, boxes, kinds, CELLS)
        return sum(weight * part.sum() for weight, part in zip(weights, parts, strict=True))

    return loss


def head_losses(
    levels: Sequence[Tensor], labels: Tensor, boxes: Tensor, kinds: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses of boxes, scores and distances, each weighted by how well a cell fits its object.

    Args:
        counts: how many cells each object gets in each of the H heads, of which a batch is the outputs, one by one.

    Returns:
        three tensors (H,).
    """
    bins, logits = (each.astype("float32") for each in flatten_levels(levels))
    if labels.shape[1] == 0:  # Paddle refuses to choose among nothing
        score = functional.binary_cross_entropy_with_logits(logits, paddle.zeros_like(logits), reduction="none")
        nothing = 0.0 * of_heads(bins, counts)
        return nothing, of_heads(score, counts), nothing
    points, strides = cell_centres(levels)
    predicted = decode_boxes(bins, points, strides)
    with paddle.no_grad():
        owner, wanted = assign(functional.sigmoid(logits), predicted, points, labels, boxes, kinds == OBJECT, counts)
        # as many cells as there may be at most, since a GPU would have to be asked how many there are; others weigh 0
        weight, cell = wanted.topk(min(max(counts) * labels.shape[1], wanted.shape[1]), axis=1)  # (B, P)
        own = paddle.take_along_axis(owner, cell, 1).clip(min=0)
        true_boxes = paddle.take_along_axis(boxes, own.unsqueeze(2), 1)
        place = cell * logits.shape[2] + paddle.take_along_axis(labels, own, 1)  # among a sample's A K scores
        true_scores = paddle.put_along_axis(paddle.zeros_like(logits).flatten(1), place, weight, 1)
        centre, stride = (each.gather(cell.flatten()).reshape([*cell.shape, -1]) for each in (points, strides))
        true_distances = paddle.concat([centre - true_boxes[..., :2], true_boxes[..., 2:] - centre], axis=2) / stride
    score = functional.binary_cross_entropy_with_logits(logits.flatten(1), true_scores, reduction="none")
    box = (1 - complete_iou(paddle.take_along_axis(predicted, cell.unsqueeze(2), 1), true_boxes)) * weight
    chosen = paddle.take_along_axis(bins.flatten(2), cell.unsqueeze(2), 1).reshape([-1, 4, BINS])
    distance = distribution_loss(chosen, true_distances.flatten(0, 1)) * weight.flatten()
    total = of_heads(weight, counts).clip(min=1)
    return of_heads(box, counts) / total, of_heads(score, counts) / total, of_heads(distance, counts) / total


def of_heads(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Each head's sum (H,)."""
    return values.reshape([len(counts), -1]).sum(axis=1)


def distribution_loss(bins: Tensor, distances: Tensor) -> Tensor:
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
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    true_labels: Tensor,
    true_boxes: Tensor,
    valid: Tensor,
    counts: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Assign to each object the cells inside its box whose predictions fit it best.

    Task-aligned assignment (Feng et al. 2021, arXiv 2108.07755, section 3.2).

    Args:
        scores: float32 (B, A, K) predicted class scores in 0..1 of A cells.
        boxes: float32 (B, A, 4) predicted boxes, x1, y1, x2, y2 in pixels.
        points: float32 (A, 2) the cells' centres in pixels.
        true_labels, true_boxes, valid: int64 (B, M), float32 (B, M, 4) and bool (B, M) objects, padded to M.
        counts: how many cells each object gets, in each of as many equal parts of the batch.

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
    best = fit.topk(min(max(counts), cells), axis=2)[1].chunk(len(counts))
    none = paddle.zeros_like(fit).chunk(len(counts))
    marked = [
        paddle.put_along_axis(part, indices[:, :, :count], 1.0, 2)
        for part, indices, count in zip(none, best, counts, strict=True)
    ]
    chosen = paddle.logical_and(paddle.concat(marked) > 0, allowed)
    # a cell chosen by several objects goes to the one it overlaps most
    owner = paddle.where(chosen, overlap, paddle.full_like(overlap, -1.0)).argmax(axis=1)  # (B, A)
    taken = chosen.any(axis=1)
    only = functional.one_hot(owner, objects).transpose([0, 2, 1])
    kept = chosen.astype("float32") * only
    fit, overlap = fit * kept, overlap * kept
    # early in training the best fit is 1e-12 or less: a larger TINY would keep the object from being learned
    scale = overlap.max(axis=2, keepdim=True) / fit.max(axis=2, keepdim=True).clip(min=TINY)
    return paddle.where(taken, owner, paddle.full_like(owner, -1)), (fit * scale).max(axis=1)
