"""A small convolutional network: three strided convolutions, for a first result within seconds on a CPU."""

from paddle import nn

from src.kit.paddle import initialise


def small_cnn(num_classes: int, in_channels: int, image_size: int, width: int = 12, dropout: float = 0.0) -> nn.Layer:
    """float32 (B, C, H, W) -> logits (B, K), for images of 8 pixels and more.

    Strides halve the image and widths double as it shrinks, which costs a CPU far less than pooling full-size maps. The
    head sees a grid of up to 4x4 cells: the place of a stroke tells digits apart.
    """
    grid = min(4, -(-image_size // 8))
    network = nn.Sequential(
        *_convolution(in_channels, width, kernel=5),
        *_convolution(width, 2 * width, kernel=3),
        *_convolution(2 * width, 4 * width, kernel=3),
        nn.AdaptiveAvgPool2D(grid),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * width * grid * grid, num_classes),
    )
    return initialise(network)


def _convolution(inputs: int, outputs: int, kernel: int) -> list[nn.Layer]:
    convolution = nn.Conv2D(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias_attr=False)
    return [convolution, nn.BatchNorm2D(outputs), nn.ReLU()]
