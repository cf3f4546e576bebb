"""Which cells learn which object: task-aligned assignment (Feng et al. 2021, arXiv 2108.07755, section 3.2)."""

import math

import paddle
from paddle.nn import functional

ALPHA, BETA = 0.5, 6.0  # the weights of the score and of the overlap
TINY = 1e-30


def assign(
    scores: paddle.Tensor,
    boxes: paddle.Tensor,
    points: paddle.Tensor,
    true_labels: paddle.Tensor,
    true_boxes: paddle.Tensor,
    valid: paddle.Tensor,
    count: int,
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Give each object the `count` cells inside its box whose predictions fit it best.

    Args:
        scores: float32 (B, A, K) predicted class scores in 0..1 of A cells.
        boxes: float32 (B, A, 4) predicted boxes, x1, y1, x2, y2 in pixels.
        points: float32 (A, 2) the cells' centres in pixels.
        true_labels, true_boxes, valid: int64 (B, M), float32 (B, M, 4) and bool (B, M) objects, padded to M.

    Returns:
        int64 (B, A) the object of each cell, -1 for background, and float32 (B, A) the score that the cell shall
        reach: 0 for background, and for the best cell of an object its overlap with it.
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
    # a cell that several objects chose goes to the one it overlaps most
    owner = paddle.where(chosen, overlap, paddle.full_like(overlap, -1.0)).argmax(axis=1)  # (B, A)
    taken = chosen.any(axis=1)
    only = functional.one_hot(owner, objects).transpose([0, 2, 1])
    kept = chosen.astype("float32") * only
    fit, overlap = fit * kept, overlap * kept
    # an object that nothing fits yet has a fit of 1e-12 and less: with a larger addend it would never be learned
    scale = overlap.max(axis=2, keepdim=True) / fit.max(axis=2, keepdim=True).clip(min=TINY)
    return paddle.where(taken, owner, paddle.full_like(owner, -1)), (fit * scale).max(axis=1)


def iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Intersection over union, 0 to 1, of boxes (..., 4)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    shared = (paddle.minimum(one[..., 2:], other[..., 2:]) - paddle.maximum(one[..., :2], other[..., :2])).clip(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    return intersection / (size[..., 0] * size[..., 1] + other_size[..., 0] * other_size[..., 1] - intersection + 1e-7)


def complete_iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Overlap minus distance and difference in shape, -1.5 to 1, of boxes (..., 4) (arXiv 1911.08287)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    overlap = iou(one, other)
    hull = paddle.maximum(one[..., 2:], other[..., 2:]) - paddle.minimum(one[..., :2], other[..., :2])
    between = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    distance = (between**2).sum(axis=-1) / ((hull**2).sum(axis=-1) + 1e-7)
    angle = paddle.atan(size[..., 0] / (size[..., 1] + 1e-7)) - paddle.atan(
        other_size[..., 0] / (other_size[..., 1] + 1e-7)
    )
    shape = angle**2 * (4 / math.pi**2)
    weight = (shape / (shape - overlap + 1 + 1e-7)).detach()
    return overlap - distance - weight * shape
