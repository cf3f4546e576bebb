"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): torchvision's, as an example of how to add a library's model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from src.kit.scenes_lightning import adapt, export_retinanet, unpad

DETECTIONS = 300  # per image
PRETRAINED = {"retinanet_resnet18": "timm/resnet18.tv_in1k"}  # repository of its backbone's ImageNet-1k weights
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
BACKBONE = "detector.backbone.body."


class RetinaNet(nn.Module):
    """In training it also takes the objects and returns its losses (2,), which `loss=network` adds up.

    In evaluation (B, C, S, S) gives (B, 300, 6) as `src/tasks/detection.py` expects it: x1, y1, x2, y2 in pixels, the
    score in 0..1, the class number; rows of zeros pad images with fewer detections.
    """

    takes_targets = True

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.detector = detection.RetinaNet(backbone, classes, detections_per_img=DETECTIONS)
        adapt(self.detector)

    def forward(self, images: torch.Tensor, *objects: torch.Tensor) -> torch.Tensor:
        if self.training:
            labels, boxes, kinds = objects
            return torch.stack(list(self.detector(images, unpad(kinds, labels=labels, boxes=boxes)).values()))
        return torch.stack([pad(detections) for detections in self.detector(images)])

    def export_parts(self, shape: Sequence[int]) -> Any:
        """What `scripts/export.py` writes, for images of `shape` (C, S, S)."""
        return export_retinanet(self.detector, shape)


def build_pyramid(depth: int, channels: int) -> nn.Module:
    """Return a ResNet's features at 1/8 to 1/128 of the size, each of 256 channels."""
    resnet = {"backbone_name": f"resnet{depth}", "weights": None, "norm_layer": nn.BatchNorm2d}
    levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    backbone: nn.Module = resnet_fpn_backbone(**resnet, **levels, trainable_layers=5)
    backbone.get_submodule("body").conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return backbone


def pad(detections: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return one image's detections as rows (300, 6)."""
    rows = torch.cat([detections["boxes"], detections["scores"][:, None], detections["labels"][:, None]], dim=1)
    return functional.pad(rows, (0, 0, 0, DETECTIONS - len(rows)))


def build(*, classes: int, channels: int, image_size: int, depth: Literal[18, 34, 50] = 18) -> RetinaNet:
    """Return the network, see `RetinaNet`.

    Args:
        depth: Layers of the ResNet.
    """
    return RetinaNet(build_pyramid(depth, channels), classes)
