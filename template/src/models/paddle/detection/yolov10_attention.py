"""Partial self-attention of YOLOv10 (Wang et al. 2024, arXiv 2405.14458, section 3.2): half of the channels attend."""

import paddle
from paddle import nn
from paddle.nn import functional

from src.models.paddle.detection.yolov10_layers import ConvNorm


class Attention(nn.Layer):
    """Multi-head self-attention over the H x W cells with keys of half a head's width: (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.value = channels // self.heads
        self.key = self.value // 2
        self.qkv = ConvNorm(channels, channels + 2 * self.heads * self.key, activate=False)
        self.position = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.out = ConvNorm(channels, channels, activate=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x).reshape([batch, self.heads, 2 * self.key + self.value, height * width])
        query, key, value = paddle.split(
            qkv, [self.key, self.key, self.value], axis=2
        )  # (B, heads, width of a head, cells)
        attention = functional.softmax(
            paddle.matmul(query, key, transpose_x=True) * self.key**-0.5, axis=3
        )  # (B, heads, cells, cells)
        seen = paddle.matmul(value, attention, transpose_y=True).reshape(x.shape)
        return self.out(seen + self.position(value.reshape(x.shape)))


class PartialAttention(nn.Layer):
    """One half of the channels passes attention and a feed-forward layer, the other goes around: (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvNorm(channels, 2 * half)
        self.attention = Attention(half)
        self.feed_forward = nn.Sequential(ConvNorm(half, 2 * half), ConvNorm(2 * half, half, activate=False))
        self.leave = ConvNorm(2 * half, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        around, through = self.enter(x).chunk(2, axis=1)
        through = through + self.attention(through)
        through = through + self.feed_forward(through)
        return self.leave(paddle.concat([around, through], axis=1))
