"""Fold what only training needs into the weights, for inference and export."""

import copy

import paddle
from paddle import nn

from src.models.paddle.detection.yolov10 import YOLOv10
from src.models.paddle.detection.yolov10_layers import ConvNorm, LargeKernel


def fuse(network: YOLOv10) -> YOLOv10:
    """A copy in evaluation mode without the training-only head, whose outputs are the same up to rounding."""
    network = copy.deepcopy(network)
    network.eval()
    network.one_to_many = nn.LayerList()
    for layer in network.sublayers():
        if isinstance(layer, ConvNorm):
            layer.conv, layer.norm = fold(layer.conv, layer.norm), nn.Identity()
    for layer in network.sublayers():
        if isinstance(layer, LargeKernel):
            add_kernel(layer.large.conv, layer.small.conv)
            layer.small = Nothing()
    return network


class Nothing(nn.Layer):
    """Adds nothing to a sum."""

    def forward(self, x: paddle.Tensor) -> float:
        return 0.0


@paddle.no_grad()
def fold(conv: nn.Conv2D, norm: nn.BatchNorm2D) -> nn.Conv2D:
    """One convolution with a bias that does what both do in evaluation."""
    scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    conv.weight.set_value(conv.weight * scale.reshape([-1, 1, 1, 1]))
    conv.bias = conv.create_parameter(norm.bias.shape, is_bias=True)
    conv.bias.set_value(norm.bias - norm._mean * scale)
    return conv


@paddle.no_grad()
def add_kernel(large: nn.Conv2D, small: nn.Conv2D) -> None:
    """Add a smaller kernel into the middle of a larger one."""
    margin = (large.weight.shape[2] - small.weight.shape[2]) // 2
    large.weight.set_value(large.weight + nn.functional.pad(small.weight, [margin] * 4))
    large.bias.set_value(large.bias + small.bias)
