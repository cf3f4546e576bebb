"""ResNet-18, -34 and -50 (He et al. 2015, arXiv 1512.03385): torchvision's, with a stem for small images."""

from collections.abc import Callable

from torch import nn
from torchvision import models

from src.kit.training import is_small


def resnet18(**arguments) -> nn.Module:
    """11.7 M parameters; see `build`."""
    return build(models.resnet18, **arguments)


def resnet34(**arguments) -> nn.Module:
    """21.8 M parameters; see `build`."""
    return build(models.resnet34, **arguments)


def resnet50(**arguments) -> nn.Module:
    """25.6 M parameters; see `build`."""
    return build(models.resnet50, **arguments)


def build(
    network: Callable[..., models.ResNet],
    num_classes: int,
    in_channels: int,
    image_size: int,
    stem: str = "auto",
    dropout: float = 0.0,
) -> nn.Module:
    """float32 (B, C, H, W) -> logits (B, K); `dropout` acts on the pooled features."""
    resnet = network(weights=None, num_classes=num_classes)
    set_stem(resnet, in_channels, is_small(stem, image_size))
    # Behind the pooling and not before `fc`, whose name pretrained weights know.
    resnet.avgpool = nn.Sequential(resnet.avgpool, nn.Dropout(dropout))
    return resnet


def set_stem(resnet: models.ResNet, in_channels: int, small: bool) -> None:
    """Replace the first convolution, and leave out the max-pooling where images are small."""
    kernel, stride = (3, 1) if small else (7, 2)
    resnet.conv1 = nn.Conv2d(in_channels, 64, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small:
        resnet.maxpool = nn.Identity()
