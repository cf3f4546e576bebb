"""YOLOv10's two heads and how their outputs become boxes (Wang et al. 2024, arXiv 2405.14458, sections 3.1 and 3.2)."""

import math
from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional, initializer

from src.models.paddle.detection.yolov10_layers import ConvNorm

BINS = 16  # a distance is a distribution over 0..15 cells (Li et al. 2020, arXiv 2006.04388)
STRIDES = (8, 16, 32)


class Head(nn.Layer):
    """From the features of one stride to each cell's distances (4 x 16 bins) and class logits: (B, 64 + K, H, W)."""

    def __init__(self, channels: int, box_width: int, class_width: int, num_classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(
            ConvNorm(channels, box_width, 3),
            ConvNorm(box_width, box_width, 3),
            nn.Conv2D(box_width, 4 * BINS, 1),
        )
        # classes are the easier half: depthwise convolutions are enough for them
        self.score = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, class_width),
            ConvNorm(class_width, class_width, 3, groups=class_width),
            ConvNorm(class_width, class_width),
            nn.Conv2D(class_width, num_classes, 1),
        )
        for branch in (self.box, self.score):
            initializer.Normal(std=0.01)(branch[-1].weight)
        initializer.Constant(1.0)(self.box[-1].bias)
        # as if each image of 640 pixels held about five objects (Lin et al. 2017, arXiv 1708.02002, section 3.3)
        initializer.Constant(math.log(5 / num_classes / (640 / stride) ** 2))(self.score[-1].bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.concat([self.box(x), self.score(x)], axis=1)


def build_heads(channels: Sequence[int], num_classes: int) -> nn.LayerList:
    """One head for each stride."""
    box_width = max(16, channels[0] // 4, 4 * BINS)
    class_width = max(channels[0], min(num_classes, 100))
    return nn.LayerList(
        [
            Head(width, box_width, class_width, num_classes, stride)
            for width, stride in zip(channels, STRIDES, strict=True)
        ]
    )


def flatten(levels: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Outputs of all strides, each (B, 64 + K, H, W), as bins (B, A, 4, 16) and logits (B, A, K) of A cells."""
    cells = paddle.concat([level.flatten(2) for level in levels], axis=2).transpose([0, 2, 1])
    bins, logits = paddle.split(cells, [4 * BINS, cells.shape[2] - 4 * BINS], axis=2)
    return bins.reshape([bins.shape[0], -1, 4, BINS]), logits


def centres(levels: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The cells' centres (A, 2), x and y in pixels, and their strides (A, 1)."""
    points, strides = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        y, x = paddle.meshgrid(paddle.arange(height, dtype="float32"), paddle.arange(width, dtype="float32"))
        grid = paddle.stack([x, y], axis=-1).reshape([-1, 2]) + 0.5
        points.append(grid * stride)
        strides.append(paddle.full([height * width, 1], float(stride)))
    return paddle.concat(points), paddle.concat(strides)


def to_boxes(bins: paddle.Tensor, points: paddle.Tensor, strides: paddle.Tensor) -> paddle.Tensor:
    """The expected distances (B, A, 4, 16) to left, top, right, bottom as boxes (B, A, 4): x1, y1, x2, y2 in pixels."""
    steps = paddle.arange(BINS, dtype="float32")
    distances = paddle.matmul(functional.softmax(bins.astype("float32"), axis=3), steps) * strides
    return paddle.concat([points - distances[..., :2], points + distances[..., 2:]], axis=2)


def best(boxes: paddle.Tensor, logits: paddle.Tensor, count: int) -> paddle.Tensor:
    """The `count` surest (box, class) pairs, surest first: (B, count, 6) of x1, y1, x2, y2, score in 0..1, class."""
    count = min(count, logits.shape[1])
    # first the surest cells, then the surest pairs of those: a sort of A values instead of A x K
    cells = logits.max(axis=2).topk(count, axis=1)[1].unsqueeze(2)  # (B, count, 1)
    boxes = paddle.take_along_axis(boxes, cells, 1)
    logits = paddle.take_along_axis(logits, cells, 1)
    scores, pairs = logits.flatten(1).topk(count, axis=1)
    cell = (pairs // logits.shape[2]).unsqueeze(2)
    labels = (pairs % logits.shape[2]).unsqueeze(2).astype(boxes.dtype)
    boxes = paddle.take_along_axis(boxes, cell, 1)
    return paddle.concat([boxes, functional.sigmoid(scores).unsqueeze(2), labels], axis=2)
