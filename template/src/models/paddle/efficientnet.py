"""EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946), with torchvision's parameter names so that its weights fit."""

import math

import paddle
from paddle import nn
from paddle.nn import initializer

from src.kit.paddle import initialise
from src.kit.training import is_small

# Table 1 of the paper: expansion, kernel, stride, input channels, output channels, blocks.
STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
DROP_RATE = 0.2


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    convolution = nn.Conv2D(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias_attr=False)
    return nn.Sequential(convolution, nn.BatchNorm2D(outputs), *([nn.Silu()] if activation else []))


class SqueezeExcitation(nn.Layer):
    """Weigh the channels of (B, C, H, W) by what the whole image shows (Hu et al. 2017, arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2D(channels, squeezed, 1)
        self.fc2 = nn.Conv2D(squeezed, channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        pooled = x.mean([2, 3], keepdim=True)
        return x * nn.functional.sigmoid(self.fc2(nn.functional.silu(self.fc1(pooled))))


class MBConv(nn.Layer):
    """Inverted bottleneck (Sandler et al. 2018, arXiv 1801.04381) with squeeze-and-excitation.

    While training, the residual branch is dropped for whole images with probability `drop` (Huang et al. 2016, arXiv
    1603.09382).
    """

    def __init__(self, expansion: int, kernel: int, stride: int, inputs: int, outputs: int, drop: float) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.block = nn.Sequential(
            *([_convolution(inputs, hidden, 1)] if expansion > 1 else []),
            _convolution(hidden, hidden, kernel, stride, groups=hidden),
            SqueezeExcitation(hidden, inputs // 4),
            _convolution(hidden, outputs, 1, activation=False),
        )
        self.residual = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self.block(x)
        if not self.residual:
            return y
        if self.training and self.drop:
            kept = paddle.rand([x.shape[0], 1, 1, 1]) >= self.drop
            y = y * (kept.astype(y.dtype) / (1 - self.drop))
        return x + y


class EfficientNet(nn.Layer):
    """float32 (B, C, H, W) -> logits (B, K)."""

    def __init__(self, num_classes: int, in_channels: int, stem_stride: int, dropout: float) -> None:
        super().__init__()
        total, built, stages = sum(stage[-1] for stage in STAGES), 0, []
        for expansion, kernel, stride, inputs, outputs, blocks in STAGES:
            stage = []
            for index in range(blocks):
                first = index == 0
                sizes = (stride, inputs) if first else (1, outputs)
                stage.append(MBConv(expansion, kernel, *sizes, outputs, drop=DROP_RATE * built / total))
                built += 1
            stages.append(nn.Sequential(*stage))
        stem, top = _convolution(in_channels, 32, 3, stem_stride), _convolution(320, 1280, 1)
        self.features = nn.Sequential(stem, *stages, top)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def efficientnet_b0(
    num_classes: int, in_channels: int, image_size: int, stem: str = "auto", dropout: float = 0.2
) -> nn.Layer:
    """float32 (B, C, H, W) -> logits (B, K), 5.3 M parameters; a small stem has stride 1 in place of 2."""
    stride = 1 if is_small(stem, image_size) else 2
    network = initialise(EfficientNet(num_classes, in_channels, stride, dropout))
    head, bound = network.classifier[1], 1 / math.sqrt(num_classes)  # torchvision's rule for this network
    initializer.Uniform(-bound, bound)(head.weight)
    initializer.Constant(0.0)(head.bias)
    return network
