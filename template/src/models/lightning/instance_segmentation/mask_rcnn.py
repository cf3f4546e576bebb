"""Mask R-CNN (He et al. 2017, arXiv 1703.06870): torchvision's, on a ResNet with a feature pyramid."""

import math
from functools import partial

import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from src.kit.lightning import Unchanged
from src.kit.scenes import OBJECT

DETECTIONS = 100  # an image


class MaskRCNN(nn.Module):
    """In training it takes the objects too and returns its losses (5,), which are summed up.

    In evaluation (B, C, S, S) gives (B, 100, 6 + 28 * 28): x1, y1, x2, y2 in pixels, the score in 0..1, the class
    number, and the mask's values in 0..1 over the box; rows of zeros where fewer objects are found.
    """

    takes_targets = True

    def __init__(
        self, depth: int, num_classes: int, in_channels: int, image_size: int, width: int, proposals: int
    ) -> None:
        super().__init__()
        smallest = 2 ** math.floor(math.log2(image_size / 16))  # 32 pixels in an image of 800
        sizes = tuple((smallest << level,) for level in range(5))
        self.detector = detection.MaskRCNN(
            build_pyramid(depth, in_channels, width),
            rpn_head=detection.rpn.RPNHead(width, num_anchors=3, conv_depth=1),
            box_head=detection.faster_rcnn.TwoMLPHead(width * 7**2, 4 * width),
            # torchvision counts the background as class 0
            box_predictor=detection.faster_rcnn.FastRCNNPredictor(4 * width, num_classes + 1),
            mask_head=detection.mask_rcnn.MaskRCNNHeads(width, (width,) * 4, dilation=1),
            mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(width, width, num_classes + 1),
            rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_pre_nms_top_n_test=proposals,
            rpn_post_nms_top_n_test=proposals,
            box_batch_size_per_image=max(64, proposals // 4),
            box_detections_per_img=DETECTIONS,
        )
        self.detector.transform = Unchanged()

    def forward(self, images: torch.Tensor, *objects: torch.Tensor) -> torch.Tensor:
        if self.training:
            losses = self.detector(images, unpad(*objects))
            return torch.stack([losses[name] for name in sorted(losses)])
        return torch.stack([pad(found) for found in self.detector(images)])


def build_pyramid(depth: int, in_channels: int, width: int) -> BackboneWithFPN:
    """A ResNet's features at 1/4 to 1/32 of the size and one halving more, each of `width` channels."""
    resnet = getattr(models, f"resnet{depth}")(weights=None)
    if in_channels != 3:
        resnet.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    first = resnet.fc.in_features // 8
    layers = {f"layer{level + 1}": str(level) for level in range(4)}
    return BackboneWithFPN(resnet, layers, [first << level for level in range(4)], width)


def unpad(
    labels: torch.Tensor, boxes: torch.Tensor, kinds: torch.Tensor, masks: torch.Tensor
) -> list[dict[str, torch.Tensor]]:
    """What torchvision calls targets, from the padded arrays of `src/tasks/instance_segmentation.py`."""
    return [
        {"labels": labels[k, real] + 1, "boxes": boxes[k, real], "masks": masks[k, real]}
        for k, real in enumerate(kinds == OBJECT)
    ]


def pad(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """One image's detections as rows, (100, 6 + 28 * 28)."""
    columns = [found["boxes"], found["scores"][:, None], found["labels"][:, None] - 1.0, found["masks"].flatten(1)]
    rows = torch.cat(columns, dim=1)
    return functional.pad(rows, (0, 0, 0, DETECTIONS - len(rows)))


def build(
    depth: int, num_classes: int, in_channels: int, image_size: int, width: int = 256, proposals: int = 1000
) -> MaskRCNN:
    """`width`: channels of the pyramid and the heads; `proposals`: regions of an image that are looked at closely."""
    return MaskRCNN(depth, num_classes, in_channels, image_size, width, proposals)


mask_rcnn_resnet18 = partial(build, 18)
mask_rcnn_resnet50 = partial(build, 50)
