"""A ResNet with a feature pyramid (Lin et al. 2016, arXiv 1612.03144): fine and coarse features with equal meaning."""

import paddle
from paddle import nn
from paddle.nn import functional, initializer
from paddle.vision import models

from src.kit.paddle import initialise

STRIDES = (4, 8, 16, 32, 64)


class FeaturePyramid(nn.Layer):
    """float32 (B, C, H, W) -> five maps of `width` channels, at 1/4, 1/8, 1/16, 1/32 and 1/64 of the size."""

    def __init__(self, depth: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.body = getattr(models, f"resnet{depth}")(pretrained=False, num_classes=0, with_pool=False)
        if in_channels != 3:
            self.body.conv1 = nn.Conv2D(in_channels, 64, 7, stride=2, padding=3, bias_attr=False)
        initialise(self.body)
        first = 64 if depth < 50 else 256
        self.inner = nn.LayerList([nn.Conv2D(first << level, width, 1) for level in range(4)])
        self.outer = nn.LayerList([nn.Conv2D(width, width, 3, padding=1) for _ in range(4)])
        for layer in (*self.inner, *self.outer):  # no activation follows: nothing to make up for
            initializer.KaimingUniform(negative_slope=1.0, nonlinearity="leaky_relu")(layer.weight)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))
        features = []
        for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
            x = layer(x)
            features.append(x)
        merged = [inner(feature) for inner, feature in zip(self.inner, features, strict=True)]
        for level in (2, 1, 0):
            merged[level] = merged[level] + functional.interpolate(merged[level + 1], merged[level].shape[2:])
        maps = [outer(feature) for outer, feature in zip(self.outer, merged, strict=True)]
        return [*maps, functional.max_pool2d(maps[-1], 1, stride=2)]
