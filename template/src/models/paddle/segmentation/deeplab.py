"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on Paddle's ResNets and MobileNetV2."""

from collections.abc import Callable
from functools import partial

import paddle
from paddle import nn
from paddle.nn import functional

from src.models.paddle.segmentation import backbones

RATES = (6, 12, 18)  # dilations that see 13, 25 and 37 cells of 16 pixels
LOW_WIDTH = 48  # of the fine features: the coarse ones should count more


class DeepLabV3Plus(nn.Layer):
    """float32 (B, C, H, W) -> logits (B, K, H, W): coarse context at 1/16 of the size, refined at 1/4."""

    def __init__(self, backbone: nn.Layer, low: int, high: int, num_classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = Context(high, width, dropout)
        self.low = conv_norm(low, LOW_WIDTH, 1)
        self.decoder = nn.Sequential(conv_norm(width + LOW_WIDTH, width, 3), conv_norm(width, width, 3))
        self.classify = nn.Conv2D(width, num_classes, 1)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        low, high = self.backbone(images)
        context = resize(self.context(high), low)
        refined = self.decoder(paddle.concat([context, self.low(low)], axis=1))
        return resize(self.classify(refined), images)


class Context(nn.Layer):
    """Atrous spatial pyramid pooling: what is around each cell, near, farther and in the whole image."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.LayerList(
            [conv_norm(inputs, width, 1), *(conv_norm(inputs, width, 3, dilation=rate) for rate in RATES)]
        )
        # no normalisation: in evaluation of one image it has one value a channel
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Conv2D(inputs, width, 1), nn.ReLU())
        self.project = nn.Sequential(conv_norm((2 + len(RATES)) * width, width, 1), nn.Dropout(dropout))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        seen = [branch(x) for branch in self.branches]
        return self.project(paddle.concat([*seen, self.whole(x).expand([-1, -1, *x.shape[2:]])], axis=1))


def conv_norm(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; the size stays."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2D(inputs, outputs, kernel, padding=padding, dilation=dilation, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(outputs), nn.ReLU())


def resize(x: paddle.Tensor, like: paddle.Tensor) -> paddle.Tensor:
    """Bilinear, to the height and width of `like`."""
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def build(
    backbone: Callable[[int], tuple[nn.Layer, int, int]],
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: int = 256,
    dropout: float = 0.1,
) -> DeepLabV3Plus:
    """`width` is the number of channels of the context and of the decoder."""
    return DeepLabV3Plus(*backbone(in_channels), num_classes, width, dropout)


deeplab_resnet18 = partial(build, backbones.resnet18)
deeplab_resnet50 = partial(build, backbones.resnet50)
deeplab_mobilenet_v2 = partial(build, backbones.mobilenet_v2)
