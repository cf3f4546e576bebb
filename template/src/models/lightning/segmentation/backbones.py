"""Classifiers as backbones: their features at 1/4 and at 1/16 of the image's size, in torchvision's names.

Each function returns the network and the numbers of channels of its fine and its coarse features.
"""

import torch
from torch import nn
from torchvision import models


class ResNetFeatures(nn.Module):
    """A ResNet without its classifier (He et al. 2015, arXiv 1512.03385): (B, C, H, W) -> fine, coarse features."""

    def __init__(self, network: models.ResNet, in_channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3 = network.layer1, network.layer2, network.layer3
        self.layer4 = dilate(network.layer4)
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        return fine, self.layer4(self.layer3(self.layer2(fine)))


class MobileNetFeatures(nn.Module):
    """MobileNetV2 without its classifier (Sandler et al. 2018, arXiv 1801.04381), for phones."""

    def __init__(self, network: models.MobileNetV2, in_channels: int) -> None:
        super().__init__()
        layers = list(network.features)[:-1]  # the last one prepares the classification
        self.features = nn.Sequential(*layers[:14], *(dilate(layer) for layer in layers[14:]))
        if in_channels != 3:
            self.features[0][0] = nn.Conv2d(in_channels, 32, 3, stride=2, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.features[:4](images)
        return fine, self.features[4:](fine)


def dilate(module: nn.Module) -> nn.Module:
    """Let a stride of 2 be 1, and the 3 x 3 convolutions after it see as far as they did, in place."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            if conv.stride == (1, 1) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (2, 2)
            conv.stride = (1, 1)
    return module


def resnet18(in_channels: int) -> tuple[nn.Module, int, int]:
    """11.2 M parameters."""
    return ResNetFeatures(models.resnet18(weights=None), in_channels), 64, 512


def resnet50(in_channels: int) -> tuple[nn.Module, int, int]:
    """23.5 M parameters."""
    return ResNetFeatures(models.resnet50(weights=None), in_channels), 256, 2048


def mobilenet_v2(in_channels: int) -> tuple[nn.Module, int, int]:
    """1.8 M parameters."""
    return MobileNetFeatures(models.mobilenet_v2(weights=None), in_channels), 24, 320
