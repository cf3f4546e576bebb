"""A small convolutional network: three strided convolutions, for a first result within seconds on a CPU."""

from typing import Annotated

import paddle
from paddle import nn

from src.kit.config import Range
from src.kit.paddle import initialise_like_torch

PRUNABLE = ("0 1 > 3", "3 4 > 6", "6 7 > 12")  # for compress.py: layers that make channels > that read them


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    width: Annotated[int, Range(min=1)] = 12,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K), for images of 8 pixels and more.

    Strides halve the image and widths double as it shrinks, which costs a CPU far less than pooling full-size maps. The
    head sees a grid of up to 4x4 cells: the position of a stroke tells digits apart.

    Args:
        width: Channels of the first layer.
        dropout: Share of the features dropped in training.
    """
    grid = min(4, -(-image_size // 8))
    network = nn.Sequential(
        *convolution(channels, width, kernel=5),
        *convolution(width, 2 * width, kernel=3),
        *convolution(2 * width, 4 * width, kernel=3),
        GridPool(grid),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * width * grid * grid, classes),
    )
    return initialise_like_torch(network)


def convolution(inputs: int, outputs: int, kernel: int) -> list[nn.Layer]:
    """Return a strided convolution, batch normalisation and ReLU: (B, C, H, W) -> (B, K, H/2, W/2)."""
    conv = nn.Conv2D(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias_attr=False)
    return [conv, nn.BatchNorm2D(outputs), nn.ReLU()]


class GridPool(nn.Layer):
    """Average a map to `grid` x `grid`; a map of that size stays as it is, which saves a CPU a layer's time."""

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: paddle.Tensor) -> paddle.Tensor:
        height, width = features.shape[-2:]
        return features if height == width == self.grid else nn.functional.adaptive_avg_pool2d(features, self.grid)
