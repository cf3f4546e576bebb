"""Partial self-attention of YOLOv10 (Wang et al. 2024, arXiv 2405.14458, section 3.2): half of the channels attend."""

import torch
from torch import nn

from src.models.lightning.detection.yolov10_layers import ConvNorm


class Attention(nn.Module):
    """Multi-head self-attention over the H x W cells with keys of half a head's width: (B, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.value = channels // self.heads
        self.key = self.value // 2
        self.qkv = ConvNorm(channels, channels + 2 * self.heads * self.key, activate=False)
        self.position = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.out = ConvNorm(channels, channels, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, self.heads, 2 * self.key + self.value, height * width)
        query, key, value = qkv.split([self.key, self.key, self.value], dim=2)  # (B, heads, width of a head, cells)
        attention = (query.transpose(2, 3) @ key * self.key**-0.5).softmax(dim=3)  # (B, heads, cells, cells)
        seen = (value @ attention.transpose(2, 3)).reshape(batch, channels, height, width)
        return self.out(seen + self.position(value.reshape(batch, channels, height, width)))


class PartialAttention(nn.Module):
    """One half of the channels passes attention and a feed-forward layer, the other goes around: (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvNorm(channels, 2 * half)
        self.attention = Attention(half)
        self.feed_forward = nn.Sequential(ConvNorm(half, 2 * half), ConvNorm(2 * half, half, activate=False))
        self.leave = ConvNorm(2 * half, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, through = self.enter(x).chunk(2, dim=1)
        through = through + self.attention(through)
        through = through + self.feed_forward(through)
        return self.leave(torch.cat([around, through], dim=1))
