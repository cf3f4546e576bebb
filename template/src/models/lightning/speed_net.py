"""A network that learns CIFAR-10 in a few epochs (after Jordan 2024, arXiv 2404.00498): a whitened first layer."""

from collections.abc import Iterator
from typing import Annotated

import torch
from torch import nn
from torch.nn import functional as F

from src.kit.config import Range

PATCH = 2  # pixels a side
LEAST_VARIANCE = 5e-4  # added to that of each direction, so that noise is not blown up


def build(*, classes: int, channels: int, image_size: int, width: Annotated[int, Range(min=1)] = 64) -> nn.Module:
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
    return nn.Sequential(*layers, GlobalMaxPool(), nn.Flatten(), nn.Linear(inputs, classes, bias=False))


def pair(inputs: int, outputs: int, pool: int) -> Iterator[nn.Module]:
    """Two convolutions with normalisation and GELU, the first pooled: (B, C, H, W) -> (B, K, H/2, W/2)."""
    for count, pooling in ((inputs, [nn.MaxPool2d(pool)] if pool > 1 else []), (outputs, [])):
        convolution = nn.Conv2d(count, outputs, 3, padding=1, bias=False)
        same = min(count, outputs)
        nn.init.dirac_(convolution.weight.data[:same])
        norm = nn.BatchNorm2d(outputs, momentum=0.4)  # a run of few steps has no time for a slow average
        yield from (convolution, *pooling, norm, nn.GELU())


class GlobalMaxPool(nn.Module):
    """The largest value of each channel; the gradient of `nn.AdaptiveMaxPool2d` is not repeatable on a GPU."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K, H, W) -> (B, K)."""
        return images.amax((2, 3))


class Whitening(nn.Module):
    """Patches of 2x2 pixels along the axes of their covariance, each of variance 1, and the negatives of these.

    The axes come from the first batch that is trained on, and stay; until then all weights are zero.
    """

    weight: torch.Tensor  # (2 C 4, C, 2, 2)

    def __init__(self, channels: int) -> None:
        super().__init__()
        count = 2 * channels * PATCH**2
        self.register_buffer("weight", torch.zeros(count, channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(count))
        self.unseen = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (B, C, H, W) -> (B, 8 C, H - 1, W - 1)."""
        if self.training and self.unseen and not images.is_meta:  # there are no values then
            self.unseen = False
            if not self.weight.any():  # not those of a run that goes on, or of another run
                self.fit(images)
        if images.is_meta or not torch.is_autocast_enabled(images.device.type):
            return F.conv2d(images, self.weight, self.bias)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 blurs the axes of least variance
            return F.conv2d(images, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, images: torch.Tensor) -> None:
        """Set the weights from float32 images (B, C, H, W), the same ones in every process."""
        with torch.autocast(images.device.type, enabled=False):
            patches = F.unfold(images.float(), PATCH).transpose(1, 2).flatten(0, 1)  # (N, C 4)
            variances, axes = torch.linalg.eigh(patches.T @ patches / len(patches))
            filters = (axes / (variances + LEAST_VARIANCE).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast(self.weight, 0)
