"""EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946): torchvision's, with a stem for small images."""

from typing import Annotated, Literal

from torch import nn
from torchvision import models

from src.kit.config import Range
from src.kit.training import stem_stride

PRETRAINED = {  # model name -> Hugging Face repository of its ImageNet-1k weights
    "efficientnet": "timm/efficientnet_b0.ra_in1k",
}
LICENCE = "apache-2.0"  # of these weights, as their publisher names it
PRUNABLE = (  # for compress.py: a block's expanded channels, which no shortcut adds to
    "features.*.*.block: 0.0 0.1 1.0 1.1 2.fc2 > 2.fc1 3.0",
)


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    stem: Literal["scaled", "small", "half", "imagenet", "auto"] = "scaled",
    dropout: Annotated[float, Range(min=0, below=1)] = 0.2,
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K), 5.3 M parameters.

    Args:
        stem: First layers: small has stride 1 instead of 2. scaled takes it for images of up to 32 pixels; auto, for
            runs that have it, up to 64.
        dropout: Share of the pooled features dropped in training.
    """
    network = models.efficientnet_b0(weights=None, num_classes=classes, dropout=dropout)
    stride = min(2, stem_stride(stem, image_size))
    convolution = nn.Conv2d(channels, 32, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    network.features[0][0] = convolution
    return network
