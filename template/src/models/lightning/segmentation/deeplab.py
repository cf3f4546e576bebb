"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on torchvision's ResNets and MobileNetV2."""

from typing import Annotated, Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from src.kit.config import Range
from src.kit.scenes_lightning import resize_by_products

WIDTHS = {"resnet18": (64, 512), "resnet50": (256, 2048), "mobilenet_v2": (24, 320)}  # of fine and coarse features
RATES = (6, 12, 18)  # dilations: receptive fields of 13, 25 and 37 cells of 16 pixels
PRETRAINED = {  # model name -> Hugging Face repository of its backbone's ImageNet-1k weights
    "deeplab_resnet18": "timm/resnet18.tv_in1k",
    "deeplab_resnet50": "timm/resnet50.tv_in1k",
}
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
BACKBONE = "backbone."
LOW_WIDTH = 48  # channels of the fine features: few, so that the coarse ones dominate
PRUNABLE = (  # for compress.py: a block's inner channels, which no shortcut adds to
    "backbone.layer*.*: conv1 bn1 > conv2",
    "backbone.layer*.*: conv2 bn2 > conv3",
    "backbone.features.*.conv: 0.0 0.1 1.0 1.1 > 2",
)


class DeepLabV3Plus(nn.Module):
    """float32 (B, C, H, W) -> logits (B, K, H, W): coarse context at 1/16 of the size, refined at 1/4."""

    def __init__(self, backbone: nn.Module, low: int, high: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.context = Context(high, width, dropout)
        self.low = conv_norm(low, LOW_WIDTH, 1)
        self.decoder = nn.Sequential(conv_norm(width + LOW_WIDTH, width, 3), conv_norm(width, width, 3))
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        low, high = self.backbone(images)
        context = resize(self.context(high), low)
        refined = self.decoder(torch.cat([context, self.low(low)], dim=1))
        return resize(self.classify(refined), images)


class Context(nn.Module):
    """Atrous spatial pyramid pooling: context of each cell at four scales and of the whole image."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_norm(inputs, width, 1), *(conv_norm(inputs, width, 3, dilation=rate) for rate in RATES)]
        )
        # no normalisation: there is one value per channel and image
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, width, 1), nn.ReLU())
        self.project = nn.Sequential(conv_norm((2 + len(RATES)) * width, width, 1), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [branch(x) for branch in self.branches]
        return self.project(torch.cat([*seen, self.whole(x).expand(-1, -1, *x.shape[2:])], dim=1))


def conv_norm(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Return a convolution, batch normalisation and ReLU that keep the size."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Resize bilinearly to the height and width of `like`."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return resize_by_products(x, like.shape[2:])
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


class ResNetFeatures(nn.Module):
    """A ResNet without its classifier: (B, C, H, W) -> features at 1/4 and at 1/16 of the size."""

    def __init__(self, network: models.ResNet, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2, self.layer3 = network.layer1, network.layer2, network.layer3
        self.layer4 = dilate(network.layer4)
        if channels != 3:
            self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        return fine, self.layer4(self.layer3(self.layer2(fine)))


class MobileNetFeatures(nn.Module):
    """MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) without its classifier, likewise."""

    def __init__(self, network: models.MobileNetV2, channels: int) -> None:
        super().__init__()
        layers = list(network.features)[:-1]  # the last one belongs to the classifier
        self.features = nn.Sequential(*layers[:14], *(dilate(layer) for layer in layers[14:]))
        if channels != 3:
            self.features[0][0] = nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.features[:4](images)
        return fine, self.features[4:](fine)


def dilate(module: nn.Module) -> nn.Module:
    """Replace stride 2 by 1 and dilate the 3 x 3 convolutions after it, so that they see as far as before; in place."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            if conv.stride == (1, 1) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (2, 2)
            conv.stride = (1, 1)
    return module


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    backbone: Literal["resnet18", "resnet50", "mobilenet_v2"] = "resnet18",
    width: Annotated[int, Range(min=1)] = 256,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1,
) -> DeepLabV3Plus:
    """Return the network, see `DeepLabV3Plus`.

    Args:
        backbone: Features: resnet18 has 11.2 M parameters, resnet50 has 23.5 M, mobilenet_v2 has 1.8 M.
        width: Channels of the context and the decoder.
        dropout: Share of the context's features dropped in training.
    """
    network = getattr(models, backbone)(weights=None)
    features = MobileNetFeatures if backbone == "mobilenet_v2" else ResNetFeatures
    return DeepLabV3Plus(features(network, channels), *WIDTHS[backbone], classes, width, dropout)
