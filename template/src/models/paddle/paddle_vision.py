"""Any image classifier of paddle.vision (https://github.com/PaddlePaddle/Paddle, Apache-2.0), by its name there.

`model=paddle_vision model.name=mobilenet_v3_small`; paddle_vision.txt lists the names. Paddle publishes its weights as
pickles, which are not read: `model.weights` starts from a run of yours.
"""

import paddle
from paddle import nn
from paddle.vision import models

from src.kit.config import UserError


def build(*, classes: int, channels: int, image_size: int, name: str) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        name: Paddle's name of the network.

    Raises:
        UserError: an image size that the network cannot take.
    """
    try:
        network: nn.Layer = getattr(models, name)(pretrained=False, num_classes=classes)
        take_channels(network, channels)
        network.eval()
        with paddle.no_grad():  # most find out at the first image that its size does not fit
            network(paddle.zeros([1, channels, image_size, image_size]))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"Paddle cannot build {name} for images of {image_size} pixels ({reason}).") from error
    network.train()
    return network


def take_channels(network: nn.Layer, channels: int) -> None:
    """Give the first convolution another number of input channels."""
    place, first = next((name, layer) for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D))
    if channels != first.weight.shape[1]:
        outputs, _, *kernel = first.weight.shape
        keys = {"stride": first._stride, "padding": first._padding, "dilation": first._dilation}
        bias = False if first.bias is None else None
        holder = network
        *parents, own = place.split(".")
        for each in parents:
            holder = getattr(holder, each)
        setattr(holder, own, nn.Conv2D(channels, outputs, kernel, bias_attr=bias, **keys))
