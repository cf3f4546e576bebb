"""YOLOv10's two heads and how their outputs become boxes (Wang et al. 2024, arXiv 2405.14458, sections 3.1 and 3.2)."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from src.models.lightning.detection.yolov10_layers import ConvNorm

BINS = 16  # a distance is a distribution over 0..15 cells (Li et al. 2020, arXiv 2006.04388)
STRIDES = (8, 16, 32)


class Head(nn.Module):
    """From the features of one stride to each cell's distances (4 x 16 bins) and class logits: (B, 64 + K, H, W)."""

    def __init__(self, channels: int, box_width: int, class_width: int, num_classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(
            ConvNorm(channels, box_width, 3),
            ConvNorm(box_width, box_width, 3),
            nn.Conv2d(box_width, 4 * BINS, 1),
        )
        # classes are the easier half: depthwise convolutions are enough for them
        self.score = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, class_width),
            ConvNorm(class_width, class_width, 3, groups=class_width),
            ConvNorm(class_width, class_width),
            nn.Conv2d(class_width, num_classes, 1),
        )
        for branch in (self.box, self.score):
            nn.init.normal_(branch[-1].weight, std=0.01)
        nn.init.constant_(self.box[-1].bias, 1.0)
        # as if each image of 640 pixels held about five objects (Lin et al. 2017, arXiv 1708.02002, section 3.3)
        nn.init.constant_(self.score[-1].bias, math.log(5 / num_classes / (640 / stride) ** 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.box(x), self.score(x)], dim=1)


def build_heads(channels: Sequence[int], num_classes: int) -> nn.ModuleList:
    """One head for each stride."""
    box_width = max(16, channels[0] // 4, 4 * BINS)
    class_width = max(channels[0], min(num_classes, 100))
    return nn.ModuleList(
        Head(width, box_width, class_width, num_classes, stride)
        for width, stride in zip(channels, STRIDES, strict=True)
    )


def flatten(levels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of all strides, each (B, 64 + K, H, W), as bins (B, A, 4, 16) and logits (B, A, K) of A cells."""
    cells = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
    bins, logits = cells.split([4 * BINS, cells.shape[2] - 4 * BINS], dim=2)
    return bins.reshape(bins.shape[0], -1, 4, BINS), logits


def centres(levels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells' centres (A, 2), x and y in pixels, and their strides (A, 1)."""
    points, strides = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        y = torch.arange(height, device=level.device, dtype=torch.float32) + 0.5
        x = torch.arange(width, device=level.device, dtype=torch.float32) + 0.5
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        points.append(grid * stride)
        strides.append(torch.full((height * width, 1), float(stride), device=level.device))
    return torch.cat(points), torch.cat(strides)


def to_boxes(bins: torch.Tensor, points: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """The expected distances (B, A, 4, 16) to left, top, right, bottom as boxes (B, A, 4): x1, y1, x2, y2 in pixels."""
    steps = torch.arange(BINS, device=bins.device, dtype=torch.float32)
    distances = (bins.float().softmax(dim=3) @ steps) * strides
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)


def best(boxes: torch.Tensor, logits: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` surest (box, class) pairs, surest first: (B, count, 6) of x1, y1, x2, y2, score in 0..1, class."""
    count = min(count, logits.shape[1])
    # first the surest cells, then the surest pairs of those: a sort of A values instead of A x K
    cells = logits.amax(dim=2).topk(count, dim=1).indices.unsqueeze(2)  # (B, count, 1)
    boxes = boxes.gather(1, cells.expand(-1, -1, 4))
    logits = logits.gather(1, cells.expand(-1, -1, logits.shape[2]))
    scores, pairs = logits.flatten(1).topk(count, dim=1)
    cell = (pairs // logits.shape[2]).unsqueeze(2)
    labels = (pairs % logits.shape[2]).unsqueeze(2).to(boxes.dtype)
    return torch.cat([boxes.gather(1, cell.expand(-1, -1, 4)), scores.sigmoid().unsqueeze(2), labels], dim=2)
