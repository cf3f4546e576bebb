"""Boxes as x1, y1, x2, y2 in pixels: overlaps, matching, sampling, and offsets from one box to another."""

import math

import paddle
from paddle.nn import functional

LARGEST = math.log(1000 / 16)  # of a predicted growth: exp of more would overflow


def iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    shared = paddle.minimum(one[:, None, 2:], other[None, :, 2:]) - paddle.maximum(one[:, None, :2], other[None, :, :2])
    intersection = shared.clip(min=0).prod(axis=2)
    return intersection / (area(one)[:, None] + area(other)[None] - intersection + 1e-9)


def area(boxes: paddle.Tensor) -> paddle.Tensor:
    """(N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def match(
    boxes: paddle.Tensor, true: paddle.Tensor, low: float, high: float, each: bool = False
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Which of (M, 4) true boxes each of (N, 4) boxes overlaps most, and 1 (by `high`), -1 (below `low`) or 0.

    With `each`, every true box also gets the boxes that overlap it most, however little.
    """
    if true.shape[0] == 0:
        return paddle.zeros([boxes.shape[0]], "int64"), paddle.full([boxes.shape[0]], -1, "int64")
    overlap = iou(boxes, true)
    best, owner = overlap.max(axis=1), overlap.argmax(axis=1)
    quality = (best >= high).astype("int64") - (best < low).astype("int64")
    if each:
        most = overlap.max(axis=0, keepdim=True)
        rescued = paddle.logical_and(overlap >= 0.99999 * most, overlap > 0).any(axis=1)
        quality = paddle.where(rescued, paddle.ones_like(quality), quality)
    return owner, quality


def sample(kind: paddle.Tensor, count: int, share: float) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Random places of at most `share` x `count` positive examples (1), and of negative ones (-1) for the rest."""
    positive = draw(kind == 1, int(count * share))
    return positive, draw(kind == -1, count - positive.shape[0])


def draw(wanted: paddle.Tensor, count: int) -> paddle.Tensor:
    """At most `count` random places of true values, int64 (n,)."""
    places = wanted.nonzero().flatten()
    return places[paddle.randperm(places.shape[0])[:count]] if places.shape[0] else places


def encode(boxes: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
    """Offsets (N, 4) from boxes to true ones: shift by the box's size, logarithm of the growth (arXiv 1311.2524)."""
    size, true_size = boxes[:, 2:] - boxes[:, :2], true[:, 2:] - true[:, :2]
    shift = (true[:, :2] + true[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / (2 * size)
    return paddle.concat([shift, paddle.log(true_size / size)], axis=1)


def decode(boxes: paddle.Tensor, offsets: paddle.Tensor) -> paddle.Tensor:
    """The boxes (N, 4) that `encode` gives these offsets for."""
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    centre = centre + offsets[:, :2] * size
    half = paddle.exp(offsets[:, 2:].clip(max=LARGEST)) * size / 2
    return paddle.concat([centre - half, centre + half], axis=1)


def offset_loss(offsets: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
    """Sum of smooth L1 losses, quadratic below a ninth (Girshick 2015, arXiv 1504.08083)."""
    return 9 * functional.smooth_l1_loss(offsets, true, reduction="sum", delta=1 / 9)
