"""EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946): torchvision's, with a stem for small images."""

from torch import nn
from torchvision import models

from src.kit.training import is_small


def efficientnet_b0(
    num_classes: int, in_channels: int, image_size: int, stem: str = "auto", dropout: float = 0.2
) -> nn.Module:
    """float32 (B, C, H, W) -> logits (B, K), 5.3 M parameters; a small stem has stride 1 in place of 2."""
    network = models.efficientnet_b0(weights=None, num_classes=num_classes, dropout=dropout)
    stride = 1 if is_small(stem, image_size) else 2
    convolution = nn.Conv2d(in_channels, 32, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    network.features[0][0] = convolution
    return network
