"""The building blocks of YOLOv10 (Wang et al. 2024, arXiv 2405.14458, section 3.2). All keep NCHW float32."""

import torch
from torch import nn


class ConvNorm(nn.Module):
    """Convolution, batch normalisation and SiLU (or nothing): (B, C, H, W) -> (B, K, H/stride, W/stride)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.activation = nn.SiLU() if activate else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.norm(self.conv(x)))


class LargeKernel(nn.Module):
    """A depthwise 7 x 7 convolution trained with a 3 x 3 one beside it, which `fuse` adds into it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = ConvNorm(channels, channels, 7, groups=channels, activate=False)
        self.small = ConvNorm(channels, channels, 3, groups=channels, activate=False)
        self.activation = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.large(x) + self.small(x))


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions, added to their input where `shortcut` is set."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvNorm(channels, channels, 3), ConvNorm(channels, channels, 3))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class CompactInvertedBlock(nn.Module):
    """Depthwise convolutions mix space, 1 x 1 convolutions mix channels; its figure 3 (b)."""

    def __init__(self, channels: int, large_kernel: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.layers = nn.Sequential(
            ConvNorm(channels, channels, 3, groups=channels),
            ConvNorm(channels, wide),
            LargeKernel(wide) if large_kernel else ConvNorm(wide, wide, 3, groups=wide),
            ConvNorm(wide, channels),
            ConvNorm(channels, channels, 3, groups=channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class CrossStage(nn.Module):
    """Half of the channels pass `blocks` one after another, and every stage of them is kept and mixed at the end."""

    def __init__(self, inputs: int, outputs: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        half = outputs // 2
        self.enter = ConvNorm(inputs, 2 * half)
        self.blocks = nn.ModuleList(blocks)
        self.leave = ConvNorm((2 + len(blocks)) * half, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = list(self.enter(x).chunk(2, dim=1))
        for block in self.blocks:
            stages.append(block(stages[-1]))
        return self.leave(torch.cat(stages, dim=1))


class Downsample(nn.Module):
    """Channels change first, by 1 x 1, then the size, by a depthwise convolution ("spatial-channel decoupled")."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.channels = ConvNorm(inputs, outputs)
        self.space = ConvNorm(outputs, outputs, 3, stride=2, groups=outputs, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.space(self.channels(x))


class PyramidPooling(nn.Module):
    """Max-pooling over 5, 9 and 13 cells beside the input (SPPF; He et al. 2014, arXiv 1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvNorm(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.leave = ConvNorm(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(self.pool(stages[-1]))
        return self.leave(torch.cat(stages, dim=1))
