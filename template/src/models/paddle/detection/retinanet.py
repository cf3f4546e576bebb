"""RetinaNet (Lin et al. 2017, arXiv 1708.02002) on a ResNet, from Paddle's operators, under torchvision's names."""

from collections.abc import Sequence
from typing import Any, Literal

import paddle
from paddle import nn

from src.kit.detection_dense_paddle import DenseDetector, dense_losses, keep_best
from src.kit.scenes_paddle import unpad

DETECTIONS = 300  # per image
PRETRAINED = {"retinanet_resnet18": "timm/resnet18.tv_in1k"}  # repository of its backbone's ImageNet-1k weights
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
BACKBONE = "detector.backbone.body."


class RetinaNet(nn.Layer):
    """In training it also takes the objects and returns its losses (2,), which `loss=network` adds up.

    In evaluation (B, C, S, S) gives (B, 300, 6) as `src/tasks/detection.py` expects it: x1, y1, x2, y2 in pixels, the
    score in 0..1, the class number; rows of zeros pad images with fewer detections.
    """

    takes_targets = True

    def __init__(self, depth: int, classes: int, channels: int) -> None:
        super().__init__()
        self.detector = DenseDetector(depth, classes, channels)

    def forward(self, images: paddle.Tensor, *objects: paddle.Tensor) -> paddle.Tensor:
        logits, offsets, anchors = self.detector(images)
        if not self.training:
            return keep_best(logits, offsets, anchors, images.shape[2:], DETECTIONS)
        labels, boxes, kinds = objects
        return paddle.stack(dense_losses(logits, offsets, paddle.concat(anchors), *unpad(kinds, labels, boxes)))

    def export_parts(self, shape: Sequence[int]) -> Any:
        """What `scripts/export.py` writes, for images of `shape` (C, S, S)."""
        return self.detector.export_parts(shape, DETECTIONS)


def build(*, classes: int, channels: int, image_size: int, depth: Literal[18, 34, 50] = 18) -> RetinaNet:
    """Return the network, see `RetinaNet`.

    Args:
        depth: Layers of the ResNet.
    """
    return RetinaNet(depth, classes, channels)
