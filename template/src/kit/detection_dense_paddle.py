"""RetinaNet in Paddle (Lin et al. 2017, arXiv 1708.02002): pyramid, heads, anchors, losses and the choice of boxes.

Layers have torchvision's names, anchors and losses are its own. Boxes are float32 (..., 4): x1, y1, x2, y2 in pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional, initializer
from paddle.vision import ops

from src.kit.scenes_paddle import (
    body_maps,
    build_body,
    decode_boxes,
    encode_boxes,
    initialise_laterals,
    match_boxes,
    merge_maps,
)

__all__ = ["DenseDetector", "dense_losses", "find_anchors", "keep_best"]

SMALLEST = 32  # pixels of a side of the finest level's anchors
SCALES = 3  # sizes of anchors at each place, up to twice the level's
RATIOS = (0.5, 1.0, 2.0)  # height to width of the anchors
ANCHORS = SCALES * len(RATIOS)  # at each place
PRIOR = 0.01  # of an object at an anchor, before training
MIN_SCORE = 0.05  # of a detection
CANDIDATES = 1000  # pairs of box and class of each level that are looked at
OVERLAP = 0.5  # IoU above which the less confident of two boxes of a class is dropped
LEVELS = ("p6", "p7")  # beyond the ResNet's


class Pyramid(nn.Layer):
    """Convolutions that make maps at 1/8 to 1/128 of the size from a ResNet's last three."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.inner_blocks = nn.LayerList([nn.Sequential(nn.Conv2D(inputs, width, 1)) for inputs in widths])
        self.layer_blocks = nn.LayerList([nn.Sequential(nn.Conv2D(width, width, 3, padding=1)) for _ in widths])
        self.extra_blocks = nn.LayerDict({name: nn.Conv2D(width, width, 3, 2, 1) for name in LEVELS})
        initialise_laterals(self.sublayers())

    def forward(self, maps: Sequence[paddle.Tensor]) -> list[paddle.Tensor]:
        merged = merge_maps(maps, self.inner_blocks, self.layer_blocks)
        sixth = self.extra_blocks["p6"](merged[-1])
        return [*merged, sixth, self.extra_blocks["p7"](functional.relu(sixth))]


class Backbone(nn.Layer):
    """float32 (B, C, H, W) -> five maps of `width` channels, at 1/8, 1/16, 1/32, 1/64 and 1/128 of the size."""

    def __init__(self, depth: int, channels: int, width: int) -> None:
        super().__init__()
        self.body, widths = build_body(depth, channels)
        self.fpn = Pyramid(widths[1:], width)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return self.fpn(body_maps(self.body, images)[1:])


class Tower(nn.Layer):
    """Four convolutions and a last one, called `last`: five maps -> float32 (B, A, values) of all their anchors."""

    def __init__(self, width: int, last: str, values: int, bias: float) -> None:
        super().__init__()
        rows = [nn.Sequential(nn.Conv2D(width, width, 3, padding=1), nn.ReLU()) for _ in range(4)]
        self.conv, self.last, self.values = nn.Sequential(*rows), last, values
        self.add_sublayer(last, nn.Conv2D(width, ANCHORS * values, 3, padding=1))
        for layer in (each for each in self.sublayers() if isinstance(each, nn.Conv2D)):
            initializer.Normal(std=0.01)(layer.weight)
        initializer.Constant(bias)(getattr(self, last).bias)

    def forward(self, maps: Sequence[paddle.Tensor]) -> paddle.Tensor:
        found = []
        for each in maps:
            count = each.shape[2] * each.shape[3] * ANCHORS  # exporters know it, and not the batch
            last = getattr(self, self.last)(self.conv(each))
            found.append(last.transpose([0, 2, 3, 1]).reshape([-1, count, self.values]))
        return paddle.concat(found, axis=1).astype("float32")


class Head(nn.Layer):
    """Five maps -> class logits (B, A, K) and offsets (B, A, 4) of all anchors."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classification_head = Tower(width, "cls_logits", classes, -math.log((1 - PRIOR) / PRIOR))
        self.regression_head = Tower(width, "bbox_reg", 4, 0.0)

    def forward(self, maps: Sequence[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
        return self.classification_head(maps), self.regression_head(maps)


class DenseDetector(nn.Layer):
    """A ResNet with a feature pyramid, and a head: images -> class logits (B, A, K), offsets (B, A, 4) and anchors."""

    def __init__(self, depth: int, classes: int, channels: int, width: int = 256) -> None:
        super().__init__()
        self.backbone = Backbone(depth, channels, width)
        self.head = Head(width, classes)

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, list[paddle.Tensor]]:
        maps = self.backbone(images)
        anchors = find_anchors(images.shape[2:], [each.shape[2:] for each in maps])
        return *self.head(maps), [paddle.to_tensor(each) for each in anchors]

    def export_parts(self, shape: Sequence[int], most: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The part to export, and the settings of `kit/inference_scenes_detectors.py`.

        Args:
            shape: (C, H, W) of the images.
            most: detections of an image.
        """
        dense = ExportedDense(self, shape)
        settings = {
            "name": "retinanet",
            "levels": dense.levels,
            "score": MIN_SCORE,
            "candidates": CANDIDATES,
            "overlap": OVERLAP,
            "detections": most,
        }
        return {"model": (dense, shape, None)}, settings


class ExportedDense(nn.Layer):
    """RetinaNet up to its choice of boxes: images -> scores (B, A, K) in 0..1 and boxes (B, A, 4)."""

    def __init__(self, detector: DenseDetector, shape: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        with paddle.no_grad():
            maps = self.backbone(paddle.zeros([1, *shape]))
        anchors = find_anchors(shape[1:], [each.shape[2:] for each in maps])
        self.levels = [len(level) for level in anchors]
        self.register_buffer("anchors", paddle.to_tensor(np.concatenate(anchors)))

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        logits, offsets = self.head(self.backbone(images))
        return functional.sigmoid(logits), decode_boxes(self.anchors, offsets)


def find_anchors(size: Sequence[int], shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The anchors of each level, float32 (A, 4), for images and maps of these heights and widths."""
    found = []
    for level, (height, width) in enumerate(shapes):
        side = SMALLEST << level
        sides = np.array([int(side * 2 ** (step / SCALES)) for step in range(SCALES)], np.float32)
        high = np.sqrt(np.array(RATIOS, np.float32))[:, None]
        half = np.stack([(1 / high * sides).ravel(), (high * sides).ravel()], axis=1) / 2
        half = half.round()  # as in the published networks
        y, x = np.mgrid[:height, :width].astype(np.float32).reshape(2, -1)
        centre = np.stack([x * (size[1] // width), y * (size[0] // height)], axis=1)[:, None]
        found.append(np.concatenate([centre - half, centre + half], axis=2).reshape(-1, 4))
    return found


def dense_losses(
    logits: paddle.Tensor,
    offsets: paddle.Tensor,
    anchors: paddle.Tensor,
    labels: Sequence[paddle.Tensor],
    boxes: Sequence[paddle.Tensor],
) -> list[paddle.Tensor]:
    """The focal loss of the classes and the absolute error of the offsets, each by the image's positive anchors.

    Args:
        logits, offsets: (B, A, K) and (B, A, 4) of the anchors (A, 4).
        labels, boxes: int64 (n,) and float32 (n, 4), each image's objects.
    """
    scores, errors = [], [0.0 * offsets.sum()]
    for image, (kinds, true) in enumerate(zip(labels, boxes, strict=True)):
        owner, quality = match_boxes(anchors, true, 0.4, 0.5, each=True)
        positive = (quality == 1).astype("float32")  # weights rather than indices, for whose number a GPU would wait
        count, wanted = positive.sum().clip(min=1), paddle.zeros_like(logits[image])
        if true.shape[0]:
            wanted = functional.one_hot(kinds[owner], wanted.shape[1]) * positive.unsqueeze(1)
            moved = encode_boxes(anchors, true[owner])
            errors.append(((offsets[image] - moved).abs().sum(axis=1) * positive).sum() / count)
        focal = functional.sigmoid_focal_loss(logits[image], wanted, alpha=0.25, gamma=2.0, reduction="none")
        sure = (quality != 0).astype("float32").unsqueeze(1)  # neither object nor background are not learned from
        scores.append((focal * sure).sum() / count)
    return [sum(scores) / len(scores), sum(errors) / len(scores)]


def keep_best(
    logits: paddle.Tensor, offsets: paddle.Tensor, anchors: Sequence[paddle.Tensor], size: Sequence[int], most: int
) -> paddle.Tensor:
    """The detections of each image, float32 (B, most, 6) of box, score and class; rows of zeros fill them up.

    Args:
        anchors: of each level.
        size: height and width of the images.
    """
    classes, sizes = logits.shape[2], [level.shape[0] for level in anchors]
    found = []
    for scores, moves, level in zip(logits.split(sizes, 1), offsets.split(sizes, 1), anchors, strict=True):
        flat = functional.sigmoid(scores).flatten(1)
        values, places = flat.topk(min(CANDIDATES, flat.shape[1]), axis=1)
        boxes = paddle.take_along_axis(decode_boxes(level, moves), (places // classes).unsqueeze(2), 1)
        kinds = (places % classes).astype("float32")
        found.append(paddle.concat([boxes, values.unsqueeze(2), kinds.unsqueeze(2)], axis=2))
    limits = paddle.to_tensor([size[1], size[0]] * 2, dtype="float32")
    return paddle.stack([suppress(rows, limits, most) for rows in paddle.concat(found, axis=1)])


def suppress(rows: paddle.Tensor, limits: paddle.Tensor, most: int) -> paddle.Tensor:
    """Non-maximum suppression within each class of an image's candidates (n, 6): float32 (most, 6)."""
    sure = (rows[:, 4] > MIN_SCORE).nonzero().flatten()
    if sure.shape[0] == 0:
        return paddle.zeros([most, 6])
    rows = rows[sure]
    boxes = paddle.minimum(rows[:, :4].clip(min=0), limits)
    apart = boxes + rows[:, 5:] * (limits.max() + 1)  # boxes of different classes do not overlap
    kept = ops.nms(apart, OVERLAP, rows[:, 4])[:most]
    best = paddle.concat([boxes[kept], rows[kept][:, 4:]], axis=1)
    return functional.pad(best, [0, most - best.shape[0], 0, 0], value=0.0)
