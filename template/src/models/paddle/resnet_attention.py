"""ResNet-18 with multi-head self-attention over its feature map."""

from typing import Annotated, Literal

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.vision.models.resnet import BasicBlock, ResNet

from src.kit.config import Range, UserError
from src.kit.paddle import initialise_like_torch
from src.kit.training import stem_stride
from src.models.paddle.resnet import set_stem

PRETRAINED = {"resnet18_attention": "timm/resnet18.tv_in1k"}  # the attention starts from random values
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
PRUNABLE = ("layer*.*: conv1 bn1 > conv2",)  # for compress.py: a block's inner channels, which no shortcut adds to


class SelfAttention(nn.Layer):
    """Scaled dot-product self-attention (Vaswani et al. 2017, arXiv 1706.03762): (B, N, D) -> (B, N, D)."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        if features % heads:
            raise UserError(f"model.heads={heads} does not divide the {features} features; choose 1, 2, 4, 8 or 16.")
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, tokens: paddle.Tensor) -> paddle.Tensor:
        batch, count, features = tokens.shape
        qkv = self.qkv(tokens).reshape([batch, count, 3, self.heads, features // self.heads])
        query, key, value = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)  # each (B, heads, N, D / heads)
        scores = paddle.matmul(query, key, transpose_y=True) * (features // self.heads) ** -0.5
        mixed = paddle.matmul(F.softmax(scores), value)
        return self.out(mixed.transpose([0, 2, 1, 3]).reshape([batch, count, features]))


class ResNetAttention(ResNet):
    """ResNet-18, residual self-attention, LayerNorm, mean over the positions, dropout, linear head."""

    def __init__(self, classes: int, heads: int, dropout: float) -> None:
        super().__init__(BasicBlock, 18, num_classes=classes)
        features = self.fc.weight.shape[0]
        self.attention = SelfAttention(features, heads)
        self.norm = nn.LayerNorm(features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        tokens = x.flatten(2).transpose([0, 2, 1])  # (B, 512, H, W) -> (B, H * W, 512)
        tokens = self.norm(tokens + self.attention(tokens))
        return self.fc(self.dropout(tokens.mean(1)))


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    stem: Literal["scaled", "small", "half", "imagenet", "auto"] = "scaled",
    heads: Annotated[int, Range(min=1)] = 8,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1,
) -> nn.Layer:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        stem: First layers, which shrink images 1 (small), 2 (half) or 4 times (imagenet); scaled takes small up to 32
            pixels and half up to 64. auto, for runs that have it, takes small up to 64.
        heads: Attention heads, a divisor of 512.
        dropout: Share of the averaged features dropped in training.

    Raises:
        UserError: `heads` does not divide the 512 features.
    """
    network = ResNetAttention(classes, heads, dropout)
    set_stem(network, channels, stem_stride(stem, image_size))
    return initialise_like_torch(network)
