"""Fold what only training needs into the weights, for inference and export."""

import copy

import torch
from torch import nn

from src.models.lightning.detection.yolov10 import YOLOv10
from src.models.lightning.detection.yolov10_layers import ConvNorm, LargeKernel


def fuse(network: YOLOv10) -> YOLOv10:
    """A copy in evaluation mode without the training-only head, whose outputs are the same up to rounding."""
    network = copy.deepcopy(network).eval()
    network.one_to_many = nn.ModuleList()
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.conv, module.norm = fold(module.conv, module.norm), nn.Identity()
    for module in network.modules():
        if isinstance(module, LargeKernel):
            add_kernel(module.large.conv, module.small.conv)
            module.small = Nothing()
    return network


class Nothing(nn.Module):
    """Adds nothing to a sum."""

    def forward(self, x: torch.Tensor) -> float:
        return 0.0


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution with a bias that does what both do in evaluation."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight = nn.Parameter(conv.weight.detach() * scale.detach()[:, None, None, None])
    conv.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())
    return conv


def add_kernel(large: nn.Conv2d, small: nn.Conv2d) -> None:
    """Add a smaller kernel into the middle of a larger one."""
    margin = (large.kernel_size[0] - small.kernel_size[0]) // 2
    with torch.no_grad():
        large.weight[:, :, margin:-margin, margin:-margin] += small.weight
        large.bias += small.bias
