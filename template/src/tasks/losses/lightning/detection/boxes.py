"""The loss of YOLOv10's two heads in PyTorch (Wang et al. 2024, arXiv 2405.14458, section 3.1)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from omegaconf import DictConfig
from torch.nn import functional

from src.kit.scenes import OBJECT
from src.models.lightning.detection.yolov10_head import BINS, centres, flatten, to_boxes
from src.tasks.losses.lightning.detection.assignment import assign, complete_iou

CELLS = (10, 1)  # that learn an object: in the head of many, and in the head of one, which predicts


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., torch.Tensor]:
    """Return `loss((many, one), labels, boxes, kinds)`: both heads' outputs against the task's arrays, a scalar."""
    weights = (cfg.loss.box, cfg.loss.score, cfg.loss.distance)

    def loss(
        outputs: Sequence[Sequence[torch.Tensor]], labels: torch.Tensor, boxes: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        parts = [head_losses(levels, labels, boxes, kinds, count) for levels, count in zip(outputs, CELLS, strict=True)]
        return sum(weight * part for losses in parts for weight, part in zip(weights, losses, strict=True))

    return loss


def head_losses(
    levels: Sequence[torch.Tensor], labels: torch.Tensor, boxes: torch.Tensor, kinds: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses of the boxes, the scores and the distances' distributions, each weighted by how well a cell fits."""
    bins, logits = flatten(levels)
    bins, logits = bins.float(), logits.float()
    points, strides = centres(levels)
    predicted = to_boxes(bins, points, strides)
    with torch.no_grad():
        owner, wanted = assign(logits.sigmoid(), predicted, points, labels, boxes, kinds == OBJECT, count)
    total = wanted.sum().clamp(min=1)
    image, cell = (owner >= 0).nonzero(as_tuple=True)
    own = owner[image, cell]
    true_scores = torch.zeros_like(logits)
    true_scores[image, cell, labels[image, own]] = wanted[image, cell]
    score = functional.binary_cross_entropy_with_logits(logits, true_scores, reduction="sum")
    weight, true_boxes = wanted[image, cell], boxes[image, own]
    box = ((1 - complete_iou(predicted[image, cell], true_boxes)) * weight).sum()
    true_distances = torch.cat([points[cell] - true_boxes[:, :2], true_boxes[:, 2:] - points[cell]], 1) / strides[cell]
    distance = (distribution_loss(bins[image, cell], true_distances) * weight).sum()
    return box / total, score / total, distance / total


def distribution_loss(bins: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (P,) of bins (P, 4, 16) with the two bins around each of `distances` (P, 4), in cells.

    Distribution focal loss, Li et al. 2020, arXiv 2006.04388, equation 6.
    """
    distances = distances.clamp(0, BINS - 1.01)
    lower = distances.floor()
    share = distances - lower
    log = bins.log_softmax(dim=2)
    at = lower.long().unsqueeze(2)
    below, above = log.gather(2, at).squeeze(2), log.gather(2, at + 1).squeeze(2)
    return -(below * (1 - share) + above * share).mean(dim=1)
