"""Mask R-CNN (He et al. 2017, arXiv 1703.06870) on a ResNet with a feature pyramid, from Paddle's operators."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import paddle
from paddle import nn
from paddle.nn import functional

from src.kit.config import Range
from src.kit.instance_segmentation_export_paddle import export_parts
from src.kit.instance_segmentation_paddle import BoxHead, FeaturePyramid, MaskHead, ProposalNetwork, Size
from src.kit.scenes_paddle import unpad

DETECTIONS = 100  # per image
PRETRAINED = {  # model name -> Hugging Face repository of its backbone's ImageNet-1k weights
    "mask_rcnn_resnet18": "timm/resnet18.tv_in1k",
    "mask_rcnn_resnet50": "timm/resnet50.tv_in1k",
}
LICENCE = "bsd-3-clause"  # of these weights, as their publisher names it
BACKBONE = "pyramid.body."


class MaskRCNN(nn.Layer):
    """In training it also takes the objects and returns its losses (5,), which `loss=network` adds up.

    In evaluation (B, C, S, S) gives (B, 100, 6 + 28 * 28): x1, y1, x2, y2 in pixels, the score in 0..1, the class
    number, and the mask's values in 0..1 over the box; rows of zeros pad images with fewer detections.
    """

    takes_targets = True

    def __init__(
        self,
        depth: int,
        classes: int,
        channels: int,
        image_size: int,
        width: int,
        proposals: int,
        rounded: bool = False,  # anchors, as in torchvision
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(depth, channels, width)
        self.propose = ProposalNetwork(width, image_size, proposals, rounded)
        self.box = BoxHead(width, classes, examples=max(64, proposals // 4))
        self.mask = MaskHead(width, classes)

    def forward(self, images: paddle.Tensor, *objects: paddle.Tensor) -> paddle.Tensor:
        features, size = self.pyramid(images), (float(images.shape[2]), float(images.shape[3]))
        if self.training:
            return paddle.stack(self.losses(features, size, *objects))
        proposals, _ = self.propose(features, size)
        return paddle.stack([self.detect(features, k, boxes, size) for k, boxes in enumerate(proposals)])

    def export_parts(self, shape: Sequence[int]) -> Any:
        """What `scripts/export.py` writes, for images of `shape` (C, S, S)."""
        return export_parts(self.pyramid, self.propose, self.box, self.mask, shape, DETECTIONS)

    def losses(
        self,
        features: list[paddle.Tensor],
        size: Size,
        labels: paddle.Tensor,
        boxes: paddle.Tensor,
        kinds: paddle.Tensor,
        masks: paddle.Tensor,
    ) -> list[paddle.Tensor]:
        """Return objectness, proposal offset, class, box offset and mask losses; crowds are ignored."""
        true, classes, shapes = unpad(kinds, boxes, labels, masks)
        proposals, first = self.propose(features, size, true)
        proposals = [paddle.concat([found, known]) for found, known in zip(proposals, true, strict=True)]
        second, positives = self.box.losses(features, proposals, true, classes)
        third = self.mask.loss(features, positives, classes, shapes)
        return [*first, *second, third]

    def detect(self, features: list[paddle.Tensor], image: int, proposals: paddle.Tensor, size: Size) -> paddle.Tensor:
        """Return one image's detections as rows (100, 6 + 28 * 28)."""
        own = [feature[image : image + 1] for feature in features]
        found = self.box.detect(own, proposals, size, DETECTIONS)  # (n, 6)
        if found.shape[0] == 0:
            return paddle.zeros([DETECTIONS, 6 + self.mask.side**2])
        masks = self.mask.values(own, found[:, :4], found[:, 5].astype("int64"))
        rows = paddle.concat([found, masks.flatten(1)], axis=1)
        return functional.pad(rows, [0, DETECTIONS - rows.shape[0], 0, 0], value=0.0)


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
    return MaskRCNN(depth, classes, channels, image_size, width, proposals)
