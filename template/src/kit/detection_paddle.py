"""Building blocks of YOLOv10 in Paddle (Wang et al. 2024, arXiv 2405.14458): layers, heads and box arithmetic.

Feature maps are float32 (B, C, H, W). Boxes are (..., 4): x1, y1, x2, y2 in pixels.
"""

import copy
import math
from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional, initializer

__all__ = [
    "BINS",
    "STRIDES",
    "Bottleneck",
    "CompactInvertedBlock",
    "ConvNorm",
    "CrossStage",
    "Downsample",
    "PartialAttention",
    "PyramidPooling",
    "build_heads",
    "cell_centres",
    "complete_iou",
    "decode_boxes",
    "flatten_levels",
    "fold_for_inference",
    "iou",
    "top_detections",
]

BINS = 16  # each distance is a distribution over 0..15 cells (Li et al. 2020, arXiv 2006.04388)
STRIDES = (8, 16, 32)


class ConvNorm(nn.Layer):
    """Convolution, batch normalisation and SiLU (optional): (B, C, H, W) -> (B, K, H/stride, W/stride)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias_attr=False)
        self.norm = nn.BatchNorm2D(outputs, momentum=0.97, epsilon=1e-3)
        self.activation = nn.Silu() if activate else nn.Identity()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.activation(self.norm(self.conv(x)))


class LargeKernel(nn.Layer):
    """Depthwise 7 x 7 convolution plus a parallel 3 x 3 one, which `fold_for_inference` merges into it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = ConvNorm(channels, channels, 7, groups=channels, activate=False)
        self.small = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.activation = nn.Silu()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.activation(self.large(x) + self.small(x))


class Bottleneck(nn.Layer):
    """Two 3 x 3 convolutions, with a residual connection if `shortcut` is set."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class CompactInvertedBlock(nn.Layer):
    """Depthwise convolutions mix space, 1 x 1 convolutions mix channels (figure 3 (b) of the paper)."""

    def __init__(self, channels: int, large_kernel: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, wide),
            LargeKernel(wide) if large_kernel else ConvNorm(wide, wide, 3, groups=wide),
            ConvNorm(wide, channels),
            ConvNorm(channels, channels, 3, groups=channels),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x + self.layers(x)


class CrossStage(nn.Layer):
    """Run half of the channels through `blocks` in sequence, then mix the outputs of all blocks (CSP, C2f)."""

    def __init__(self, inputs: int, outputs: int, blocks: list[nn.Layer]) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = ConvNorm(inputs, 2 * half)
        self.blocks = nn.LayerList(blocks)
        self.leave = ConvNorm((2 + len(blocks)) * half, outputs)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        stages = list(self.enter(x).chunk(2, axis=1))
        for block in self.blocks:
            stages.append(block(stages[-1]))
        return self.leave(paddle.concat(stages, axis=1))


class Downsample(nn.Layer):
    """Change the channels by a 1 x 1 convolution, then halve the size by a depthwise one ("decoupled downsampling")."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.channels = ConvNorm(inputs, outputs)
        self.space = ConvNorm(outputs, outputs, 3, stride=2, groups=outputs, activate=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.space(self.channels(x))


class PyramidPooling(nn.Layer):
    """Concatenate the input with max-pooling over 5, 9 and 13 cells (SPPF; He et al. 2014, arXiv 1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, channels // 2)
        self.pool = nn.MaxPool2D(5, stride=1, padding=2)
        self.leave = ConvNorm(2 * channels, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(self.pool(stages[-1]))
        return self.leave(paddle.concat(stages, axis=1))


class Attention(nn.Layer):
    """Multi-head self-attention over the H x W cells; keys have half of a head's width. Keeps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.value = channels // self.heads
        self.key = self.value // 2
        self.qkv = ConvNorm(channels, channels + 2 * self.heads * self.key, activate=False)
        self.position = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.out = ConvNorm(channels, channels, activate=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x).reshape([batch, self.heads, 2 * self.key + self.value, height * width])
        query, key, value = paddle.split(
            qkv, [self.key, self.key, self.value], axis=2
        )  # (B, heads, width of a head, cells)
        attention = functional.softmax(
            paddle.matmul(query, key, transpose_x=True) * self.key**-0.5, axis=3
        )  # (B, heads, cells, cells)
        seen = paddle.matmul(value, attention, transpose_y=True).reshape(x.shape)
        return self.out(seen + self.position(value.reshape(x.shape)))


class PartialAttention(nn.Layer):
    """Apply attention and a feed-forward layer to half of the channels (PSA, section 3.2). Keeps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvNorm(channels, 2 * half)
        self.attention = Attention(half)
        self.feed_forward = nn.Sequential(ConvNorm(half, 2 * half), ConvNorm(2 * half, half, activate=False))
        self.leave = ConvNorm(2 * half, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        around, through = self.enter(x).chunk(2, axis=1)
        through = through + self.attention(through)
        through = through + self.feed_forward(through)
        return self.leave(paddle.concat([around, through], axis=1))


class Head(nn.Layer):
    """Predict each cell's distances (4 x 16 bins) and class logits, (B, 64 + K, H, W), from one stride's features."""

    def __init__(self, channels: int, box_width: int, class_width: int, classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(
            ConvNorm(channels, box_width, 3),
            ConvNorm(box_width, box_width, 3),
            nn.Conv2D(box_width, 4 * BINS, 1),
        )
        # classifying is easier than locating: depthwise convolutions suffice
        self.score = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, class_width),
            ConvNorm(class_width, class_width, 3, groups=class_width),
            ConvNorm(class_width, class_width),
            nn.Conv2D(class_width, classes, 1),
        )
        for branch in (self.box, self.score):
            initializer.Normal(std=0.01)(branch[-1].weight)
        initializer.Constant(1.0)(self.box[-1].bias)
        # prior of about five objects in an image of 640 pixels (Lin et al. 2017, arXiv 1708.02002, section 3.3)
        initializer.Constant(math.log(5 / classes / (640 / stride) ** 2))(self.score[-1].bias)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return paddle.concat([self.box(x), self.score(x)], axis=1)


def build_heads(channels: Sequence[int], classes: int) -> nn.LayerList:
    """Build one head for each stride."""
    box_width = max(16, channels[0] // 4, 4 * BINS)
    class_width = max(channels[0], min(classes, 100))
    return nn.LayerList(
        [Head(width, box_width, class_width, classes, stride) for width, stride in zip(channels, STRIDES, strict=True)]
    )


def flatten_levels(levels: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Join the strides' outputs, each (B, 64 + K, H, W), to bins (B, A, 4, 16) and logits (B, A, K) of A cells."""
    cells = paddle.concat([level.flatten(2) for level in levels], axis=2).transpose([0, 2, 1])
    bins, logits = paddle.split(cells, [4 * BINS, cells.shape[2] - 4 * BINS], axis=2)
    return bins.reshape([-1, bins.shape[1], 4, BINS]), logits  # exporters know the cells, not the batch


def cell_centres(levels: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Return the cells' centres (A, 2), x and y in pixels, and their strides (A, 1)."""
    points, strides = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        y, x = paddle.meshgrid(paddle.arange(height, dtype="float32"), paddle.arange(width, dtype="float32"))
        grid = paddle.stack([x, y], axis=-1).reshape([-1, 2]) + 0.5
        points.append(grid * stride)
        strides.append(paddle.full([height * width, 1], float(stride)))
    return paddle.concat(points), paddle.concat(strides)


def decode_boxes(bins: paddle.Tensor, points: paddle.Tensor, strides: paddle.Tensor) -> paddle.Tensor:
    """Turn distributions (B, A, 4, 16) of the distances to left, top, right and bottom into boxes (B, A, 4)."""
    steps = paddle.arange(BINS, dtype="float32")
    # auto_cast takes `@` in half precision
    distances = (functional.softmax(bins.astype("float32"), axis=3) * steps).sum(axis=3) * strides
    return paddle.concat([points - distances[..., :2], points + distances[..., 2:]], axis=2)


def top_detections(boxes: paddle.Tensor, logits: paddle.Tensor, count: int) -> paddle.Tensor:
    """Return the `count` most confident (box, class) pairs, sorted: (B, count, 6) of box, score in 0..1 and class."""
    count = min(count, logits.shape[1])
    # select cells first, then pairs within them: sorts A values instead of A x K
    cells = logits.max(axis=2).topk(count, axis=1)[1].unsqueeze(2)  # (B, count, 1)
    boxes = paddle.take_along_axis(boxes, cells, 1)
    logits = paddle.take_along_axis(logits, cells, 1)
    scores, pairs = logits.flatten(1).topk(count, axis=1)
    cell = (pairs // logits.shape[2]).unsqueeze(2)
    labels = (pairs % logits.shape[2]).unsqueeze(2).astype(boxes.dtype)
    boxes = paddle.take_along_axis(boxes, cell, 1)
    return paddle.concat([boxes, functional.sigmoid(scores).unsqueeze(2), labels], axis=2)


def iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Intersection over union, 0 to 1, of boxes (..., 4)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    shared = (paddle.minimum(one[..., 2:], other[..., 2:]) - paddle.maximum(one[..., :2], other[..., :2])).clip(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    return intersection / (size[..., 0] * size[..., 1] + other_size[..., 0] * other_size[..., 1] - intersection + 1e-7)


def complete_iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Complete IoU, -1.5 to 1: IoU minus penalties for distance and aspect ratio (arXiv 1911.08287)."""
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


def fold_for_inference(network: nn.Layer) -> nn.Layer:
    """Return a copy in evaluation mode without batch normalisation and the training-only head.

    `network` is a YOLOv10; the outputs are equal up to rounding.
    """
    network = copy.deepcopy(network)
    network.eval()
    network.one_to_many = nn.LayerList()
    for layer in network.sublayers():
        if isinstance(layer, ConvNorm):
            layer.conv, layer.norm = fold_norm(layer.conv, layer.norm), nn.Identity()
    for layer in network.sublayers():
        if isinstance(layer, LargeKernel):
            add_kernel(layer.large.conv, layer.small.conv)
            layer.small = Zero()
    return network


class Zero(nn.Layer):
    """Zero: the folded part of a sum."""

    def forward(self, x: paddle.Tensor) -> float:
        return 0.0


@paddle.no_grad()
def fold_norm(conv: nn.Conv2D, norm: nn.BatchNorm2D) -> nn.Conv2D:
    """Merge a batch normalisation into the convolution before it."""
    scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    conv.weight.set_value(conv.weight * scale.reshape([-1, 1, 1, 1]))
    conv.bias = conv.create_parameter(norm.bias.shape, is_bias=True)
    conv.bias.set_value(norm.bias - norm._mean * scale)
    return conv


@paddle.no_grad()
def add_kernel(large: nn.Conv2D, small: nn.Conv2D) -> None:
    """Add a smaller kernel to the middle of a larger one."""
    margin = (large.weight.shape[2] - small.weight.shape[2]) // 2
    large.weight.set_value(large.weight + nn.functional.pad(small.weight, [margin] * 4))
    large.bias.set_value(large.bias + small.bias)
