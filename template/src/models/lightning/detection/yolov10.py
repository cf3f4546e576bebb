"""YOLOv10 (Wang et al. 2024, arXiv 2405.14458): detection without non-maximum suppression, in six sizes."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from src.kit.detection_lightning import (
    Bottleneck,
    CompactInvertedBlock,
    ConvNorm,
    CrossStage,
    Downsample,
    PartialAttention,
    PyramidPooling,
    build_heads,
    cell_centres,
    decode_boxes,
    flatten_levels,
    fold_for_inference,
    top_detections,
)
from src.models.detection.yolov10_sizes import SIZES, Size, check_image_size

DETECTIONS = 300  # per image


class YOLOv10(nn.Module):
    """A backbone, a neck that mixes features top-down and bottom-up, and two heads for each stride (8, 16 and 32).

    In training it returns the outputs of both heads, each a list of three (B, 64 + K, H/stride, W/stride): the first
    assigns several cells to each object, the second, which makes the predictions, one. In evaluation it returns
    (B, 300, 6), or fewer rows if there are fewer cells: x1, y1, x2, y2 in pixels of the input, the score in 0..1 and
    the class number, most confident first.
    """

    def __init__(self, size: Size, classes: int, channels: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (size.channels(base) for base in (64, 128, 256, 512, 1024))
        stage = partial(build_stage, size)
        self.stem = nn.Sequential(ConvNorm(channels, c1, 3, 2), ConvNorm(c1, c2, 3, 2), stage("", c2, c2, 3, True))
        self.stage3 = nn.Sequential(ConvNorm(c2, c3, 3, 2), stage("", c3, c3, 6, True))
        self.stage4 = nn.Sequential(Downsample(c3, c4), stage("backbone4", c4, c4, 6, True))
        self.stage5 = nn.Sequential(
            Downsample(c4, c5), stage("backbone5", c5, c5, 3, True), PyramidPooling(c5), PartialAttention(c5)
        )
        self.up = nn.Upsample(scale_factor=2)
        self.down4 = stage("down4", c5 + c4, c4, 3)
        self.down3 = stage("down3", c4 + c3, c3, 3)
        self.step4 = ConvNorm(c3, c3, 3, 2)
        self.up4 = stage("up4", c3 + c4, c4, 3)
        self.step5 = Downsample(c4, c4)
        self.up5 = stage("up5", c4 + c5, c5, 3)
        self.one_to_many = build_heads((c3, c4, c5), classes)
        self.one_to_one = build_heads((c3, c4, c5), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[list[torch.Tensor], list[torch.Tensor]]:
        if self.training:
            check_image_size(images.shape[2])  # it changes from batch to batch with data.sizes
        features = self.features(images)
        if self.training:
            many = [head(feature) for head, feature in zip(self.one_to_many, features, strict=True)]
            # only the first head trains the features
            one = [head(feature.detach()) for head, feature in zip(self.one_to_one, features, strict=True)]
            return many, one
        levels = [head(feature) for head, feature in zip(self.one_to_one, features, strict=True)]
        bins, logits = flatten_levels(levels)
        return top_detections(decode_boxes(bins, *cell_centres(levels)), logits.float(), DETECTIONS)

    def export_parts(self, shape: Sequence[int]) -> Any:
        """What `scripts/export.py` writes, for images of `shape` (C, S, S): convolutions with folded normalisation."""
        return {"model": (fold_for_inference(self), shape, None)}, {}

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return three feature maps of (B, C, H, W), at 1/8, 1/16 and 1/32 of the size."""
        p3 = self.stage3(self.stem(images))
        p4 = self.stage4(p3)
        p5 = self.stage5(p4)
        p4 = self.down4(torch.cat([self.up(p5), p4], dim=1))
        p3 = self.down3(torch.cat([self.up(p4), p3], dim=1))
        p4 = self.up4(torch.cat([self.step4(p3), p4], dim=1))
        p5 = self.up5(torch.cat([self.step5(p4), p5], dim=1))
        return [p3, p4, p5]


def build_stage(size: Size, position: str, inputs: int, outputs: int, depth: int, shortcut: bool = False) -> CrossStage:
    """Build a stage of plain bottlenecks, or of compact blocks if `size` has them at this position."""
    half, count = outputs // 2, size.blocks(depth)
    if position in size.compact:
        return CrossStage(inputs, outputs, [CompactInvertedBlock(half, size.large_kernel) for _ in range(count)])
    return CrossStage(inputs, outputs, [Bottleneck(half, shortcut) for _ in range(count)])


def build(
    *, classes: int, channels: int, image_size: int, size: Literal["n", "s", "m", "b", "l", "x"] = "n"
) -> YOLOv10:
    """Return the network: float32 (B, C, S, S) -> see `YOLOv10`.

    Args:
        size: Size of the network, from n (2.3 M parameters) to x (29.5 M).

    Raises:
        UserError: the image size is not a multiple of 32.
    """
    check_image_size(image_size)
    return YOLOv10(SIZES[size], classes, channels)
