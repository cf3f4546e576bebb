"""Mask R-CNN (He et al. 2017, arXiv 1703.06870): torchvision's, on a ResNet with a feature pyramid."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from src.kit.config import Range
from src.kit.scenes_lightning import adapt, export_mask_rcnn, torchvision_kernels, unpad

DETECTIONS = 100  # per image
PRETRAINED = {  # model name -> Hugging Face repository of its backbone's ImageNet-1k weights
    "mask_rcnn_resnet18": "timm/resnet18.tv_in1k",
    "mask_rcnn_resnet50": "timm/resnet50.tv_in1k",
}
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
BACKBONE = "detector.backbone.body."


class MaskRCNN(nn.Module):
    """In training it also takes the objects and returns its losses (5,), which `loss=network` adds up.

    In evaluation (B, C, S, S) gives (B, 100, 6 + 28 * 28): x1, y1, x2, y2 in pixels, the score in 0..1, the class
    number, and the mask's values in 0..1 over the box; rows of zeros pad images with fewer detections.
    """

    takes_targets = True

    def __init__(self, pyramid: nn.Module, classes: int, image_size: int, width: int, proposals: int) -> None:
        super().__init__()
        smallest = 2 ** math.floor(math.log2(image_size / 16))  # 32 pixels in an image of 800
        sizes = tuple((smallest << level,) for level in range(5))
        self.detector = detection.MaskRCNN(
            pyramid,
            rpn_head=detection.rpn.RPNHead(width, num_anchors=3, conv_depth=1),
            box_head=detection.faster_rcnn.TwoMLPHead(width * 7**2, 4 * width),
            # torchvision counts the background as class 0
            box_predictor=detection.faster_rcnn.FastRCNNPredictor(4 * width, classes + 1),
            mask_head=detection.mask_rcnn.MaskRCNNHeads(width, (width,) * 4, dilation=1),
            mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(width, width, classes + 1),
            rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_test=proposals,
            box_batch_size_per_image=max(64, proposals // 4),
            box_detections_per_img=DETECTIONS,
        )
        adapt(self.detector)

    def forward(self, images: torch.Tensor, *objects: torch.Tensor) -> torch.Tensor:
        with torchvision_kernels():
            found = self.detector(images, targets(*objects) if self.training else None)
        if self.training:
            return torch.stack([found[name] for name in sorted(found)])
        return torch.stack([pad(detections) for detections in found])

    def export_parts(self, shape: Sequence[int]) -> Any:
        """What `scripts/export.py` writes, for images of `shape` (C, S, S)."""
        return export_mask_rcnn(self.detector, shape)


def build_pyramid(depth: int, channels: int, width: int) -> BackboneWithFPN:
    """Return a ResNet's features at 1/4 to 1/64 of the size, each of `width` channels."""
    resnet = getattr(models, f"resnet{depth}")(weights=None)
    if channels != 3:
        resnet.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    first = resnet.fc.in_features // 8
    layers = {f"layer{level + 1}": str(level) for level in range(4)}
    return BackboneWithFPN(resnet, layers, [first << level for level in range(4)], width)


def targets(
    labels: torch.Tensor, boxes: torch.Tensor, kinds: torch.Tensor, masks: torch.Tensor
) -> list[dict[str, torch.Tensor]]:
    """Convert the padded arrays of `src/tasks/instance_segmentation.py` to torchvision's targets."""
    return unpad(kinds, labels=labels + 1, boxes=boxes, masks=masks)


def pad(detections: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return one image's detections as rows (100, 6 + 28 * 28)."""
    columns = [
        detections["boxes"],
        detections["scores"][:, None],
        detections["labels"][:, None] - 1.0,
        detections["masks"].flatten(1),
    ]
    rows = torch.cat(columns, dim=1)
    return functional.pad(rows, (0, 0, 0, DETECTIONS - len(rows)))


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    depth: Literal[18, 34, 50] = 18,
    width: Annotated[int, Range(min=1)] = 256,
    proposals: Annotated[int, Range(min=1)] = 1000,
) -> MaskRCNN:
    """Return the network, see `MaskRCNN`.

    Args:
        depth: Layers of the ResNet.
        width: Channels of the pyramid and the heads.
        proposals: Regions of an image that the heads classify.
    """
    return MaskRCNN(build_pyramid(depth, channels, width), classes, image_size, width, proposals)
