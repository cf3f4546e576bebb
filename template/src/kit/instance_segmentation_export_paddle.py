"""Mask R-CNN in Paddle, cut into the parts that `scripts/export.py` writes; NumPy joins them."""

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional

from src.kit.inference_scenes_detectors import add_region_pooling
from src.kit.instance_segmentation_paddle import BoxHead, FeaturePyramid, MaskHead, ProposalNetwork
from src.kit.scenes_paddle import decode_boxes

__all__ = ["export_parts"]


class ExportedProposals(nn.Layer):
    """The first stage for export: images -> four feature maps, objectness (B, A) in 0..1 and boxes (B, A, 4)."""

    def __init__(self, pyramid: FeaturePyramid, network: ProposalNetwork, shape: Sequence[int]) -> None:
        super().__init__()
        self.pyramid, self.network = pyramid, network
        with paddle.no_grad():
            features = pyramid(paddle.zeros([1, *shape]))
        anchors = [network.anchors(feature.shape[2:], level) for level, feature in enumerate(features)]
        self.levels = [int(level.size) // 4 for level in anchors]
        self.register_buffer("all_anchors", paddle.concat([level.reshape([-1, 4]) for level in anchors]))

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        features, scores, offsets = self.pyramid(images), [], []
        for feature in features:
            hidden = functional.relu(self.network.hidden(feature))
            scores.append(self.network.object(hidden).transpose([0, 2, 3, 1]).flatten(1))
            offsets.append(self.network.offsets(hidden).transpose([0, 2, 3, 1]).reshape([-1, scores[-1].shape[1], 4]))
        boxes = decode_boxes(self.all_anchors, paddle.concat(offsets, axis=1))
        return *features[:4], functional.sigmoid(paddle.concat(scores, axis=1)), boxes


class ExportedBoxes(nn.Layer):
    """The second stage for export: pooled regions (n, C, 7, 7) -> scores (n, K) in 0..1 and offsets (n, K, 4)."""

    def __init__(self, head: BoxHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, regions: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        hidden = self.head.layers(regions)
        scores = functional.softmax(self.head.score(hidden), axis=1)[:, : self.head.classes]
        return scores, self.head.offsets(hidden).reshape([-1, self.head.classes, 4])


class ExportedMasks(nn.Layer):
    """The masks for export: pooled regions (n, C, 14, 14) -> values (n, K, 28, 28) in 0..1."""

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, regions: paddle.Tensor) -> paddle.Tensor:
        return functional.sigmoid(self.head.classify(self.head.layers(regions)))


def export_parts(
    pyramid: FeaturePyramid, network: ProposalNetwork, box: BoxHead, mask: MaskHead, shape: Sequence[int], most: int
) -> tuple[dict[str, tuple[nn.Layer, Sequence[int], Any]], dict[str, Any]]:
    """The parts to export, with the shapes of their inputs, and the settings of `kit/inference_scenes_detectors.py`.

    Args:
        shape: (C, S, S) of the images; `most`: detections of an image.
    """
    first, width = ExportedProposals(pyramid, network, shape), pyramid.outer[0].weight.shape[0]
    parts = {
        "model": (first, shape, None),
        "boxes": (ExportedBoxes(box), (width, 7, 7), add_region_pooling),
        "masks": (ExportedMasks(mask), (width, mask.side // 2, mask.side // 2), add_region_pooling),
    }
    settings = {
        "name": "mask_rcnn",
        "levels": first.levels,
        "candidates": 2 * network.count,
        "kept": network.count,
        "proposals": network.count,
        "side": 1.0,
        "detections": most,
    }
    return parts, settings
