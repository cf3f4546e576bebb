"""Start Paddle networks from the distributions that PyTorch's start from.

Paddle draws its convolutions by fan-in and its linear layers by Xavier's rule, with zero biases. Where both frameworks
start alike, the same config trains alike in both, and a learning rate found in one serves the other.
"""

import math

from paddle import nn
from paddle.nn import initializer


def initialise(network: nn.Layer) -> nn.Layer:
    """Kaiming-normal convolutions by fan-out (arXiv 1502.01852) and uniform +-1/sqrt(in) linear layers, in place."""
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            initializer.KaimingNormal(mode="fan_out")(layer.weight)
            if layer.bias is not None:
                initializer.Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.weight.shape[0])
            initializer.Uniform(-bound, bound)(layer.weight)
            initializer.Uniform(-bound, bound)(layer.bias)
    return network
