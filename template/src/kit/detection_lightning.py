"""Building blocks of YOLOv10 in PyTorch (Wang et al. 2024, arXiv 2405.14458): layers, heads and box arithmetic.

Feature maps are float32 (B, C, H, W). Boxes are (..., 4): x1, y1, x2, y2 in pixels.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

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


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and SiLU (optional): (B, C, H, W) -> (B, K, H/stride, W/stride)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.activation = nn.SiLU() if activate else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))


class LargeKernel(nn.Module):
    """Depthwise 7 x 7 convolution plus a parallel 3 x 3 one, which `fold_for_inference` merges into it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = ConvNorm(channels, channels, 7, groups=channels, activate=False)
        self.small = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.activation = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.large(x) + self.small(x))


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions, with a residual connection if `shortcut` is set."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class CompactInvertedBlock(nn.Module):
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class CrossStage(nn.Module):
    """Run half of the channels through `blocks` in sequence, then mix the outputs of all blocks (CSP, C2f)."""

    def __init__(self, inputs: int, outputs: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = ConvNorm(inputs, 2 * half)
        self.blocks = nn.ModuleList(blocks)
        self.leave = ConvNorm((2 + len(blocks)) * half, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = list(self.enter(x).chunk(2, dim=1))
        for block in self.blocks:
            stages.append(block(stages[-1]))
        return self.leave(torch.cat(stages, dim=1))


class Downsample(nn.Module):
    """Change the channels by a 1 x 1 convolution, then halve the size by a depthwise one ("decoupled downsampling")."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.channels = ConvNorm(inputs, outputs)
        self.space = ConvNorm(outputs, outputs, 3, stride=2, groups=outputs, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.space(self.channels(x))


class PyramidPooling(nn.Module):
    """Concatenate the input with max-pooling over 5, 9 and 13 cells (SPPF; He et al. 2014, arXiv 1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.leave = ConvNorm(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(self.pool(stages[-1]))
        return self.leave(torch.cat(stages, dim=1))


class Attention(nn.Module):
    """Multi-head self-attention over the H x W cells; keys have half of a head's width. Keeps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.value = channels // self.heads
        self.key = self.value // 2
        self.qkv = ConvNorm(channels, channels + 2 * self.heads * self.key, activate=False)
        self.position = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.out = ConvNorm(channels, channels, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, self.heads, 2 * self.key + self.value, height * width)
        query, key, value = qkv.split([self.key, self.key, self.value], dim=2)  # (B, heads, width of a head, cells)
        attention = (query.transpose(2, 3) @ key * self.key**-0.5).softmax(dim=3)  # (B, heads, cells, cells)
        seen = (value @ attention.transpose(2, 3)).reshape(batch, channels, height, width)
        return self.out(seen + self.position(value.reshape(batch, channels, height, width)))


class PartialAttention(nn.Module):
    """Apply attention and a feed-forward layer to half of the channels (PSA, section 3.2). Keeps (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvNorm(channels, 2 * half)
        self.attention = Attention(half)
        self.feed_forward = nn.Sequential(ConvNorm(half, 2 * half), ConvNorm(2 * half, half, activate=False))
        self.leave = ConvNorm(2 * half, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, through = self.enter(x).chunk(2, dim=1)
        through = through + self.attention(through)
        through = through + self.feed_forward(through)
        return self.leave(torch.cat([around, through], dim=1))


class Head(nn.Module):
    """Predict each cell's distances (4 x 16 bins) and class logits, (B, 64 + K, H, W), from one stride's features."""

    def __init__(self, channels: int, box_width: int, class_width: int, classes: int, stride: int) -> None:
        super().__init__()
        self.box = nn.Sequential(
            ConvNorm(channels, box_width, 3),
            ConvNorm(box_width, box_width, 3),
            nn.Conv2d(box_width, 4 * BINS, 1),
        )
        # classifying is easier than locating: depthwise convolutions suffice
        self.score = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, class_width),
            ConvNorm(class_width, class_width, 3, groups=class_width),
            ConvNorm(class_width, class_width),
            nn.Conv2d(class_width, classes, 1),
        )
        for branch in (self.box, self.score):
            nn.init.normal_(branch[-1].weight, std=0.01)
        nn.init.constant_(self.box[-1].bias, 1.0)
        # prior of about five objects in an image of 640 pixels (Lin et al. 2017, arXiv 1708.02002, section 3.3)
        nn.init.constant_(self.score[-1].bias, math.log(5 / classes / (640 / stride) ** 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.box(x), self.score(x)], dim=1)


def build_heads(channels: Sequence[int], classes: int) -> nn.ModuleList:
    """Build one head for each stride."""
    box_width = max(16, channels[0] // 4, 4 * BINS)
    class_width = max(channels[0], min(classes, 100))
    return nn.ModuleList(
        Head(width, box_width, class_width, classes, stride) for width, stride in zip(channels, STRIDES, strict=True)
    )


def flatten_levels(levels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join the strides' outputs, each (B, 64 + K, H, W), to bins (B, A, 4, 16) and logits (B, A, K) of A cells."""
    cells = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
    bins, logits = cells.split([4 * BINS, cells.shape[2] - 4 * BINS], dim=2)
    return bins.reshape(bins.shape[0], -1, 4, BINS), logits


def cell_centres(levels: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cells' centres (A, 2), x and y in pixels, and their strides (A, 1)."""
    points, strides = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        y = torch.arange(height, device=level.device, dtype=torch.float32) + 0.5
        x = torch.arange(width, device=level.device, dtype=torch.float32) + 0.5
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)
        points.append(grid * stride)
        strides.append(torch.full((height * width, 1), float(stride), device=level.device))
    return torch.cat(points), torch.cat(strides)


def decode_boxes(bins: torch.Tensor, points: torch.Tensor, strides: torch.Tensor) -> torch.Tensor:
    """Turn distributions (B, A, 4, 16) of the distances to left, top, right and bottom into boxes (B, A, 4)."""
    steps = torch.arange(BINS, device=bins.device, dtype=torch.float32)
    distances = (bins.float().softmax(dim=3) * steps).sum(dim=3) * strides  # autocast takes `@` in half precision
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)


def top_detections(boxes: torch.Tensor, logits: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count` most confident (box, class) pairs, sorted: (B, count, 6) of box, score in 0..1 and class."""
    count = min(count, logits.shape[1])
    # select cells first, then pairs within them: sorts A values instead of A x K
    cells = logits.amax(dim=2).topk(count, dim=1).indices.unsqueeze(2)  # (B, count, 1)
    boxes = boxes.gather(1, cells.expand(-1, -1, 4))
    logits = logits.gather(1, cells.expand(-1, -1, logits.shape[2]))
    scores, pairs = logits.flatten(1).topk(count, dim=1)
    cell = (pairs // logits.shape[2]).unsqueeze(2)
    labels = (pairs % logits.shape[2]).unsqueeze(2).to(boxes.dtype)
    return torch.cat([boxes.gather(1, cell.expand(-1, -1, 4)), scores.sigmoid().unsqueeze(2), labels], dim=2)


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union, 0 to 1, of boxes (..., 4)."""
    size, other_size = one[..., 2:] - one[..., :2], other[..., 2:] - other[..., :2]
    shared = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    return intersection / (size[..., 0] * size[..., 1] + other_size[..., 0] * other_size[..., 1] - intersection + 1e-7)


def complete_iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Complete IoU, -1.5 to 1: IoU minus penalties for distance and aspect ratio (arXiv 1911.08287)."""
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


def fold_for_inference(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode without batch normalisation and the training-only head.

    `network` is a YOLOv10; the outputs are equal up to rounding.
    """
    network = copy.deepcopy(network).eval()
    network.one_to_many = nn.ModuleList()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.conv, module.norm = fold_norm(module.conv, module.norm), nn.Identity()
    for module in network.modules():
        if isinstance(module, LargeKernel):
            add_kernel(module.large.conv, module.small.conv)
            module.small = Zero()
    return network


class Zero(nn.Module):
    """Zero: the folded part of a sum."""

    def forward(self, x: torch.Tensor) -> float:
        return 0.0


def fold_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Merge a batch normalisation into the convolution before it."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight = nn.Parameter(conv.weight.detach() * scale.detach()[:, None, None, None])
    conv.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())
    return conv


def add_kernel(large: nn.Conv2d, small: nn.Conv2d) -> None:
    """Add a smaller kernel to the middle of a larger one."""
    margin = (large.kernel_size[0] - small.kernel_size[0]) // 2
    with torch.no_grad():
        large.weight[:, :, margin:-margin, margin:-margin] += small.weight
        large.bias += small.bias
