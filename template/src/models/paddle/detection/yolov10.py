"""YOLOv10 (Wang et al. 2024, arXiv 2405.14458): detection without non-maximum suppression, in six sizes."""

from functools import partial

import paddle
from paddle import nn

from src.models.detection.yolov10_sizes import SIZES, Size, check_size
from src.models.paddle.detection.yolov10_attention import PartialAttention
from src.models.paddle.detection.yolov10_head import best, build_heads, centres, flatten, to_boxes
from src.models.paddle.detection.yolov10_layers import (
    Bottleneck,
    CompactInvertedBlock,
    ConvNorm,
    CrossStage,
    Downsample,
    PyramidPooling,
)

DETECTIONS = 300  # an image


class YOLOv10(nn.Layer):
    """A backbone, a neck that passes features down and up again, and two heads for each of the strides 8, 16 and 32.

    In training it returns the outputs of both heads, each a list of three (B, 64 + K, H/stride, W/stride): the first
    learns from many cells for each object, the second, which is the one that predicts, from one. In evaluation it
    returns (B, 300, 6), or fewer rows where there are fewer cells: x1, y1, x2, y2 in pixels of the input, the score in
    0..1 and the class number, surest first.
    """

    def __init__(self, size: Size, num_classes: int, in_channels: int) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (size.channels(base) for base in (64, 128, 256, 512, 1024))
        stage = partial(build_stage, size)
        self.stem = nn.Sequential(ConvNorm(in_channels, c1, 3, 2), ConvNorm(c1, c2, 3, 2), stage("", c2, c2, 3, True))
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
        self.one_to_many = build_heads((c3, c4, c5), num_classes)
        self.one_to_one = build_heads((c3, c4, c5), num_classes)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor | tuple[list[paddle.Tensor], list[paddle.Tensor]]:
        if self.training:
            check_size(images.shape[2])  # with data.sizes it changes from batch to batch
        features = self.features(images)
        if self.training:
            many = [head(feature) for head, feature in zip(self.one_to_many, features, strict=True)]
            # the features learn from the first head only
            one = [head(feature.detach()) for head, feature in zip(self.one_to_one, features, strict=True)]
            return many, one
        levels = [head(feature) for head, feature in zip(self.one_to_one, features, strict=True)]
        bins, logits = flatten(levels)
        return best(to_boxes(bins, *centres(levels)), logits.astype("float32"), DETECTIONS)

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """(B, C, H, W) -> three feature maps, at 1/8, 1/16 and 1/32 of the size."""
        p3 = self.stage3(self.stem(images))
        p4 = self.stage4(p3)
        p5 = self.stage5(p4)
        p4 = self.down4(paddle.concat([self.up(p5), p4], axis=1))
        p3 = self.down3(paddle.concat([self.up(p4), p3], axis=1))
        p4 = self.up4(paddle.concat([self.step4(p3), p4], axis=1))
        p5 = self.up5(paddle.concat([self.step5(p4), p5], axis=1))
        return [p3, p4, p5]


def build_stage(size: Size, place: str, inputs: int, outputs: int, depth: int, shortcut: bool = False) -> CrossStage:
    """A stage of plain bottlenecks, or of compact ones where the size has them at this place."""
    half, count = outputs // 2, size.blocks(depth)
    if place in size.compact:
        return CrossStage(inputs, outputs, [CompactInvertedBlock(half, size.large_kernel) for _ in range(count)])
    return CrossStage(inputs, outputs, [Bottleneck(half, shortcut) for _ in range(count)])


def build(size: str, num_classes: int, in_channels: int, image_size: int) -> YOLOv10:
    """float32 (B, C, S, S) -> see `YOLOv10`; S is a multiple of 32."""
    check_size(image_size)
    return YOLOv10(SIZES[size], num_classes, in_channels)


yolov10n = partial(build, "n")
yolov10s = partial(build, "s")
yolov10m = partial(build, "m")
yolov10b = partial(build, "b")
yolov10l = partial(build, "l")
yolov10x = partial(build, "x")
