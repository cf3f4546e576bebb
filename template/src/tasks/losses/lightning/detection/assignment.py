"""Which cells learn which object: task-aligned assignment (Feng et al. 2021, arXiv 2108.07755, section 3.2)."""

import math

import torch

ALPHA, BETA = 0.5, 6.0  # the weights of the score and of the overlap
TINY = 1e-30


def assign(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    points: torch.Tensor,
    true_labels: torch.Tensor,
    true_boxes: torch.Tensor,
    valid: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
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
    chosen = torch.zeros_like(allowed).scatter_(2, fit.topk(min(count, cells), dim=2).indices, True) & allowed
    # a cell that several objects chose goes to the one it overlaps most
    owner = overlap.masked_fill(~chosen, -1.0).argmax(dim=1)  # (B, A)
    taken = chosen.any(dim=1)
    chosen &= torch.nn.functional.one_hot(owner, chosen.shape[1]).transpose(1, 2).bool()
    fit, overlap = fit * chosen, overlap * chosen
    # an object that nothing fits yet has a fit of 1e-12 and less: with a larger addend it would never be learned
    scale = overlap.amax(dim=2, keepdim=True) / fit.amax(dim=2, keepdim=True).clamp(min=TINY)
    target = (fit * scale).amax(dim=1)
    return owner.masked_fill(~taken, -1), target


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union, 0 to 1, of boxes (..., 4)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    shared = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    return intersection / (size[..., 0] * size[..., 1] + other_size[..., 0] * other_size[..., 1] - intersection + 1e-7)


def complete_iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Overlap minus distance and difference in shape, -1.5 to 1, of boxes (..., 4) (arXiv 1911.08287)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    overlap = iou(one, other)
    hull = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    between = (one[..., :2] + one[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    distance = (between**2).sum(dim=-1) / ((hull**2).sum(dim=-1) + 1e-7)
    angle = torch.atan(size[..., 0] / (size[..., 1] + 1e-7)) - torch.atan(
        other_size[..., 0] / (other_size[..., 1] + 1e-7)
    )
    shape = angle**2 * (4 / math.pi**2)
    with torch.no_grad():
        weight = shape / (shape - overlap + 1 + 1e-7)
    return overlap - distance - weight * shape
