"""EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946), with torchvision's parameter names so that its weights fit."""

import math
from typing import Annotated, Literal

import paddle
from paddle import nn
from paddle.nn import initializer

from src.kit.config import Range
from src.kit.paddle import initialise_like_torch
from src.kit.training import stem_stride

PRETRAINED = {  # model name -> Hugging Face repository of its ImageNet-1k weights
    "efficientnet": "timm/efficientnet_b0.ra_in1k",
}
LICENCE = "apache-2.0"  # of these weights, as their publisher names it
PRUNABLE = (  # for compress.py: a block's expanded channels, which no shortcut adds to
    "features.*.*.block: 0.0 0.1 1.0 1.1 2.fc2 > 2.fc1 3.0",
)
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


def convolution_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Return a convolution, batch normalisation and SiLU (optional)."""
    convolution = nn.Conv2D(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias_attr=False)
    return nn.Sequential(convolution, nn.BatchNorm2D(outputs), *([nn.Silu()] if activation else []))


class SqueezeExcitation(nn.Layer):
    """Scale the channels of (B, C, H, W) by a gate computed from their means (Hu et al. 2017, arXiv 1709.01507)."""

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
            *([convolution_norm(inputs, hidden, 1)] if expansion > 1 else []),
            convolution_norm(hidden, hidden, kernel, stride, groups=hidden),
            SqueezeExcitation(hidden, inputs // 4),
            convolution_norm(hidden, outputs, 1, activation=False),
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

    def __init__(self, classes: int, channels: int, stem_stride: int, dropout: float) -> None:
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
        stem, top = convolution_norm(channels, 32, 3, stem_stride), convolution_norm(320, 1280, 1)
        self.features = nn.Sequential(stem, *stages, top)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, classes))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    stem: Literal["scaled", "small", "half", "imagenet", "auto"] = "scaled",
    dropout: Annotated[float, Range(min=0, below=1)] = 0.2,
) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K), 5.3 M parameters.

    Args:
        stem: First layers: small has stride 1 instead of 2. scaled takes it for images of up to 32 pixels; auto, for
            runs that have it, up to 64.
        dropout: Share of the pooled features dropped in training.
    """
    stride = min(2, stem_stride(stem, image_size))
    network = initialise_like_torch(EfficientNet(classes, channels, stride, dropout))
    head, bound = network.classifier[1], 1 / math.sqrt(classes)  # torchvision's rule for this network
    initializer.Uniform(-bound, bound)(head.weight)
    initializer.Constant(0.0)(head.bias)
    return network
