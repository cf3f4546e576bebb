"""A network that learns CIFAR-10 in a few epochs (after Jordan 2024, arXiv 2404.00498): a whitened first layer."""

from collections.abc import Iterator
from typing import Annotated, Any

import paddle
from paddle import nn
from paddle.nn import functional as F

from src.kit.config import Range
from src.kit.paddle import initialise_like_torch

PATCH = 2  # pixels a side
LEAST_VARIANCE = 5e-4  # added to that of each direction, so that noise is not blown up


def build(*, classes: int, channels: int, image_size: int, width: Annotated[int, Range(min=1)] = 64) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K), for images of 3 pixels and more.

    Three pairs of 3x3 convolutions follow the whitened layer, each with one maximum pooling; convolutions begin as the
    identity as far as their channels reach. Its recipe is experiment=cifar10_fast.

    Args:
        width: Channels of the first pair; the others have four times as many.
    """
    whitening = Whitening(channels)
    layers = [whitening, nn.GELU()]
    inputs, side = len(whitening.weight), image_size - PATCH + 1
    for outputs in (width, 4 * width, 4 * width):
        layers += pair(inputs, outputs, pool=min(2, side))
        inputs, side = outputs, max(1, side // 2)
    head = nn.Linear(inputs, classes, bias_attr=False)
    network = initialise_like_torch(nn.Sequential(*layers, GlobalMaxPool(), nn.Flatten(), head))
    for layer in network:
        if isinstance(layer, nn.Conv2D):
            Identity()(layer.weight)
    return network


def pair(inputs: int, outputs: int, pool: int) -> Iterator[nn.Layer]:
    """Two convolutions with normalisation and GELU, the first pooled: (B, C, H, W) -> (B, K, H/2, W/2)."""
    for count, pooling in ((inputs, [nn.MaxPool2D(pool)] if pool > 1 else []), (outputs, [])):
        norm = nn.BatchNorm2D(outputs, momentum=0.6)  # a run of few steps has no time for a slow average
        yield from (nn.Conv2D(count, outputs, 3, padding=1, bias_attr=False), *pooling, norm, nn.GELU())


class Identity(nn.initializer.Initializer):
    """Lets each of a convolution's first outputs be an input, as far as there are both; weight (K, C, 3, 3)."""

    def forward(self, var: paddle.Tensor, block: Any = None) -> None:
        values = var.numpy()
        same = min(values.shape[:2])
        values[:same] = 0
        values[range(same), range(same), 1, 1] = 1
        var.set_value(values)


class GlobalMaxPool(nn.Layer):
    """The largest value of each channel; `nn.AdaptiveMaxPool2D` finds its place too, which ONNX cannot."""

    def forward(self, features: paddle.Tensor) -> paddle.Tensor:
        """(B, C, H, W) -> (B, C, 1, 1)."""
        return F.max_pool2d(features, features.shape[2:])


class Whitening(nn.Layer):
    """Patches of 2x2 pixels along the axes of their covariance, each of variance 1, and the negatives of these.

    The axes come from the first batch that is trained on, and stay; until then all weights are zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        count = 2 * channels * PATCH**2
        self.register_buffer("weight", paddle.zeros([count, channels, PATCH, PATCH]))
        self.bias = self.create_parameter([count], is_bias=True)
        self.unseen = True

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """float32 (B, C, H, W) -> (B, 8 C, H - 1, W - 1)."""
        if self.training and self.unseen and paddle.in_dynamic_mode():  # in a static graph there are no values
            self.unseen = False
            if not self.weight.any():  # not those of a run that goes on, or of another run
                self.fit(images)
        with paddle.amp.auto_cast(enable=False):  # bfloat16 blurs the axes of least variance
            return F.conv2d(images, self.weight, self.bias)

    @paddle.no_grad()
    def fit(self, images: paddle.Tensor) -> None:
        """Set the weights from float32 images (B, C, H, W), the same ones in every process."""
        with paddle.amp.auto_cast(enable=False):
            patches = F.unfold(images.astype("float32"), PATCH).transpose([0, 2, 1]).flatten(0, 1)  # (N, C 4)
            variances, axes = paddle.linalg.eigh(patches.T @ patches / len(patches))
            filters = (axes / (variances + LEAST_VARIANCE).sqrt()).T.reshape([-1, *self.weight.shape[1:]])
        self.weight.set_value(paddle.concat([filters, -filters]))
        if paddle.distributed.get_world_size() > 1:
            paddle.distributed.broadcast(self.weight, 0)
