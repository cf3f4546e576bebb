"""The loss of YOLOv10's two heads in PyTorch (Wang et al. 2024, arXiv 2405.14458, section 3.1)."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from torch.nn import functional

from src.kit.config import Range
from src.kit.detection_lightning import BINS, STRIDES, cell_centres, complete_iou, decode_boxes, flatten_levels, iou
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
) -> Callable[..., torch.Tensor]:
    """Return `loss((many, one), labels, boxes, kinds)`: both heads' outputs against the task's arrays, a scalar.

    Args:
        box: Weight of the overlap of predicted and true boxes.
        score: Weight of the class scores.
        distance: Weight of the distributions of the boxes' edges.
    """
    weights = (box, score, distance)
    classes = None if class_counts is None else len(class_counts)

    def loss(
        outputs: Sequence[Sequence[torch.Tensor]], labels: torch.Tensor, boxes: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        check_heads(outputs, len(STRIDES), 4 * BINS, classes)
        both = [torch.cat(levels) for levels in zip(*outputs, strict=True)]  # one batch (2 B, 64 + K, H, W)
        labels, boxes, kinds = (torch.cat([each, each]) for each in (labels, boxes, kinds))
        parts = head_losses(both, labels, boxes, kinds, CELLS)
        return sum(weight * part.sum() for weight, part in zip(weights, parts, strict=True))

    return loss


def head_losses(
    levels: Sequence[torch.Tensor],
    labels: torch.Tensor,
    boxes: torch.Tensor,
    kinds: torch.Tensor,
    counts: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the losses of boxes, scores and distances, each weighted by how well a cell fits its object.

    Args:
        counts: how many cells each object gets in each of the H heads, of which a batch is the outputs, one by one.

    Returns:
        three tensors (H,).
    """
    bins, logits = flatten_levels(levels)
    bins, logits = bins.float(), logits.float()
    points, strides = cell_centres(levels)
    predicted = decode_boxes(bins, points, strides)
    with torch.no_grad():
        owner, wanted = assign(logits.sigmoid(), predicted, points, labels, boxes, kinds == OBJECT, counts)
        # as many cells as there may be at most, since a GPU would have to be asked how many there are; others weigh 0
        weight, cell = wanted.topk(min(max(counts) * labels.shape[1], wanted.shape[1]), dim=1)  # (B, P)
        own = owner.gather(1, cell).clamp(min=0)
        true_boxes = boxes.gather(1, spread(own, 4))
        place = cell * logits.shape[2] + labels.gather(1, own)
        true_scores = torch.zeros_like(logits).flatten(1).scatter_(1, place, weight).view_as(logits)
        centre, stride = points[cell], strides[cell]
        true_distances = torch.cat([centre - true_boxes[..., :2], true_boxes[..., 2:] - centre], dim=2) / stride
    score = functional.binary_cross_entropy_with_logits(logits, true_scores, reduction="none")
    box = (1 - complete_iou(predicted.gather(1, spread(cell, 4)), true_boxes)) * weight
    chosen = bins.flatten(2).gather(1, spread(cell, 4 * BINS)).view(-1, 4, BINS)
    distance = distribution_loss(chosen, true_distances.flatten(0, 1)) * weight.flatten()
    total = of_heads(weight, counts).clamp(min=1)
    return of_heads(box, counts) / total, of_heads(score, counts) / total, of_heads(distance, counts) / total


def spread(index: torch.Tensor, width: int) -> torch.Tensor:
    """(B, P) -> (B, P, width), to gather whole rows."""
    return index.unsqueeze(2).expand(-1, -1, width)


def of_heads(values: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """Each head's sum (H,)."""
    return values.reshape(len(counts), -1).sum(dim=1)


def distribution_loss(bins: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy (P,) of bins (P, 4, 16) with the two bins around each of `distances` (P, 4), in cells.

    Distribution focal loss, Li et al. 2020, arXiv 2006.04388, equation 6.
    """
    distances = distances.clamp(0, BINS - 1.01)
    lower = distances.floor()
    share = distances - lower
    log = bins.log_softmax(dim=2)
    at = lower.long().unsqueeze(2)
    below, above = log.gather(2, at).squeeze(2), log.gather(2, at + 1).squeeze(2)
    return -(below * (1 - share) + above * share).mean(dim=1)


def assign(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    points: torch.Tensor,
    true_labels: torch.Tensor,
    true_boxes: torch.Tensor,
    valid: torch.Tensor,
    counts: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
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
    if true_labels.shape[1] == 0:
        return scores.new_full((batch, cells), -1, dtype=torch.int64), scores.new_zeros((batch, cells))
    classes = true_labels.unsqueeze(1).expand(-1, cells, -1)
    score = scores.gather(2, classes).transpose(1, 2)  # (B, M, A)
    overlap = iou(true_boxes.unsqueeze(2), boxes.unsqueeze(1))  # (B, M, A)
    left_top = points - true_boxes[..., None, :2]
    right_bottom = true_boxes[..., None, 2:] - points
    inside = torch.cat([left_top, right_bottom], dim=-1).amin(dim=-1) > 0
    allowed = inside & valid.unsqueeze(2)
    fit = score**ALPHA * overlap**BETA * allowed
    best = fit.topk(min(max(counts), cells), dim=2).indices
    chosen = torch.zeros_like(allowed)
    for part, indices, count in zip(chosen.chunk(len(counts)), best.chunk(len(counts)), counts, strict=True):
        part.scatter_(2, indices[:, :, :count], True)
    chosen &= allowed
    # a cell chosen by several objects goes to the one it overlaps most
    owner = overlap.masked_fill(~chosen, -1.0).argmax(dim=1)  # (B, A)
    taken = chosen.any(dim=1)
    chosen &= owner.unsqueeze(1) == torch.arange(chosen.shape[1], device=owner.device)[:, None]
    fit, overlap = fit * chosen, overlap * chosen
    # early in training the best fit is 1e-12 or less: a larger TINY would keep the object from being learned
    scale = overlap.amax(dim=2, keepdim=True) / fit.amax(dim=2, keepdim=True).clamp(min=TINY)
    target = (fit * scale).amax(dim=1)
    return owner.masked_fill(~taken, -1), target
