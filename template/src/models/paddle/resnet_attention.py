"""ResNet-18 whose feature map is looked at by multi-head self-attention before it is averaged."""

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.vision.models.resnet import BasicBlock, ResNet

from src.kit.config import UserError
from src.kit.paddle import initialise
from src.kit.training import is_small
from src.models.paddle.resnet import set_stem


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
    """ResNet-18, self-attention with a residual connection, LayerNorm, mean over the places, dropout, linear head."""

    def __init__(self, num_classes: int, heads: int, dropout: float) -> None:
        super().__init__(BasicBlock, 18, num_classes=num_classes)
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


def resnet18_attention(
    num_classes: int, in_channels: int, image_size: int, stem: str = "auto", heads: int = 8, dropout: float = 0.1
) -> nn.Layer:
    """float32 (B, C, H, W) -> logits (B, K).

    Raises:
        UserError: `heads` does not divide the 512 features.
    """
    network = ResNetAttention(num_classes, heads, dropout)
    set_stem(network, in_channels, is_small(stem, image_size))
    return initialise(network)
