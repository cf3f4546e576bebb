"""ResNet-18, -34 and -50 (He et al. 2015, arXiv 1512.03385): Paddle's, with a stem for small images."""

from typing import Annotated, Literal

from paddle import nn
from paddle.vision import models

from src.kit.config import Range
from src.kit.paddle import initialise_like_torch
from src.kit.training import stem_stride

PRETRAINED = {  # model name -> Hugging Face repository of its ImageNet-1k weights
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv_in1k",
}
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
PRUNABLE = (  # for compress.py: a block's inner channels, which no shortcut adds to
    "layer*.*: conv1 bn1 > conv2",
    "layer*.*: conv2 bn2 > conv3",
)


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    depth: Literal[18, 34, 50] = 18,
    stem: Literal["scaled", "small", "half", "imagenet", "auto"] = "scaled",
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        depth: Layers: 18 has 11.7 M parameters, 34 has 21.8 M, 50 has 25.6 M.
        stem: First layers, which shrink images 1 (small), 2 (half) or 4 times (imagenet); scaled takes small up to 32
            pixels and half up to 64. auto, for runs that have it, takes small up to 64.
        dropout: Share of the pooled features dropped in training.
    """
    resnet: nn.Layer = getattr(models, f"resnet{depth}")(pretrained=False, num_classes=classes)
    set_stem(resnet, channels, stem_stride(stem, image_size))
    # after the pooling and not before `fc`, whose name pretrained weights use
    resnet.avgpool = nn.Sequential(resnet.avgpool, nn.Dropout(dropout))
    return initialise_like_torch(resnet)


def set_stem(resnet: nn.Layer, channels: int, stride: int) -> None:
    """Replace the first convolution, and drop the max-pooling unless both together shrink images 4 times."""
    kernel, step = (3, 1) if stride == 1 else (7, 2)
    resnet.conv1 = nn.Conv2D(channels, 64, kernel, step, padding=kernel // 2, bias_attr=False)
    if stride < 4:
        resnet.maxpool = nn.Identity()
