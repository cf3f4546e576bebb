"""What detectors in Paddle share: a ResNet's maps, a feature pyramid, boxes and anchors, the weights of COCO.

Boxes are float32 (N, 4): x1, y1, x2, y2 in pixels.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional, initializer
from paddle.vision import models

from src.kit.paddle import initialise_like_torch, weights_from_numpy, weights_to_numpy
from src.kit.scenes import OBJECT, fit_coco_weights
from src.kit.scenes_published_paddle import read_published
from src.kit.training import announce_weights
from src.kit.weights import download_published

__all__ = [
    "body_maps",
    "build_body",
    "decode_boxes",
    "encode_boxes",
    "initialise_laterals",
    "iou",
    "match_boxes",
    "merge_maps",
    "start_from_coco",
    "unpad",
]

Arrays = dict[str, np.ndarray]

MAX_GROWTH = math.log(1000 / 16)  # limit of a predicted growth: exp of more would overflow


def build_body(depth: int, channels: int) -> tuple[nn.Layer, list[int]]:
    """A ResNet without its classifier, for `body_maps`, and the channels of its four maps."""
    body: nn.Layer = getattr(models, f"resnet{depth}")(pretrained=False, num_classes=0, with_pool=False)
    if channels != 3:
        body.conv1 = nn.Conv2D(channels, 64, 7, stride=2, padding=3, bias_attr=False)
    first = 64 if depth < 50 else 256
    return initialise_like_torch(body), [first << level for level in range(4)]


def body_maps(body: nn.Layer, images: paddle.Tensor) -> list[paddle.Tensor]:
    """A ResNet's maps of images (B, C, H, W), at 1/4, 1/8, 1/16 and 1/32 of the size."""
    x = body.maxpool(body.relu(body.bn1(body.conv1(images))))
    maps = []
    for layer in (body.layer1, body.layer2, body.layer3, body.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def initialise_laterals(layers: Iterable[nn.Layer]) -> None:
    """Draw the first weights of a feature pyramid's convolutions, which no activation follows: with a gain of 1."""
    for layer in layers:
        if isinstance(layer, nn.Conv2D):
            initializer.KaimingUniform(negative_slope=1.0, nonlinearity="leaky_relu")(layer.weight)


def merge_maps(
    maps: Sequence[paddle.Tensor], inner: Sequence[nn.Layer], outer: Sequence[nn.Layer]
) -> list[paddle.Tensor]:
    """A feature pyramid (Lin et al. 2016, arXiv 1612.03144): each map plus the coarser ones, of equal channels."""
    merged = [layer(each) for layer, each in zip(inner, maps, strict=True)]
    for level in reversed(range(len(merged) - 1)):
        merged[level] = merged[level] + functional.interpolate(merged[level + 1], merged[level].shape[2:])
    return [layer(each) for layer, each in zip(outer, merged, strict=True)]


def iou(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    shared = paddle.minimum(one[:, None, 2:], other[None, :, 2:]) - paddle.maximum(one[:, None, :2], other[None, :, :2])
    intersection = shared.clip(min=0).prod(axis=2)
    return intersection / (area(one)[:, None] + area(other)[None] - intersection + 1e-9)


def area(boxes: paddle.Tensor) -> paddle.Tensor:
    """Area of the boxes, (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def match_boxes(
    boxes: paddle.Tensor, true: paddle.Tensor, low: float, high: float, each: bool = False
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Match (N, 4) boxes to (M, 4) true ones.

    Args:
        low, high: IoU below which a box is negative, and from which it is positive.
        each: also make the boxes with the highest IoU of each true box positive, however low it is.

    Returns:
        int64 (N,) the true box with the highest IoU, and int64 (N,) 1 for positive, -1 for negative, else 0.
    """
    if true.shape[0] == 0:
        return paddle.zeros([boxes.shape[0]], "int64"), paddle.full([boxes.shape[0]], -1, "int64")
    overlap = iou(boxes, true)
    best, owner = overlap.max(axis=1), overlap.argmax(axis=1)
    quality = (best >= high).astype("int64") - (best < low).astype("int64")
    if each:
        most = overlap.max(axis=0, keepdim=True)
        rescued = paddle.logical_and(overlap >= 0.99999 * most, overlap > 0).any(axis=1)
        quality = paddle.where(rescued, paddle.ones_like(quality), quality)
    return owner, quality


def encode_boxes(boxes: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
    """Return offsets (N, 4) from boxes to true ones: shift / size and logarithm of the growth (arXiv 1311.2524)."""
    size, true_size = boxes[:, 2:] - boxes[:, :2], true[:, 2:] - true[:, :2]
    shift = (true[:, :2] + true[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / (2 * size)
    return paddle.concat([shift, paddle.log(true_size / size)], axis=1)


def decode_boxes(boxes: paddle.Tensor, offsets: paddle.Tensor) -> paddle.Tensor:
    """Invert `encode_boxes`: boxes (N, 4) moved by offsets (N, 4), or by a batch of them (B, N, 4)."""
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    centre = centre + offsets[..., :2] * size
    half = paddle.exp(offsets[..., 2:].clip(max=MAX_GROWTH)) * size / 2
    return paddle.concat([centre - half, centre + half], axis=-1)


def unpad(kinds: paddle.Tensor, *arrays: paddle.Tensor) -> list[list[paddle.Tensor]]:
    """A batch's padded arrays (B, M, ...) as lists of each image's objects alone.

    Args:
        kinds: uint8 (B, M), as `pad_objects` says; crowds and padding are not learned.
    """
    if kinds.shape[1] == 0:
        return [list(array) for array in arrays]
    alone = (kinds == OBJECT).astype("int64")
    order = alone.argsort(axis=1, descending=True, stable=True)  # objects first
    counts = alone.sum(axis=1).tolist()  # the only values that a GPU is asked for
    rows = [order[k, :count] for k, count in enumerate(counts)]
    return [[array[k][own] for k, own in enumerate(rows)] for array in arrays]


def start_from_coco(
    detector: nn.Layer,
    url: str,
    class_names: Sequence[str] | None,
    to_torchvision: Callable[[Arrays], Arrays] = dict,
    from_torchvision: Callable[[Arrays], Arrays] = dict,
) -> None:
    """Load torchvision's weights of COCO into a detector.

    Args:
        url: of the file.
        class_names: of the detector's outputs; those that COCO names alike are known at once.
        to_torchvision, from_torchvision: give the detector's arrays torchvision's names and shapes, and back.

    Raises:
        UserError: the file cannot be downloaded.
    """
    announce_weights(url, "bsd-3-clause")
    weights = read_published(download_published(url))
    fitted = fit_coco_weights(weights, to_torchvision(weights_to_numpy(detector)), class_names)
    weights_from_numpy(detector, from_torchvision(fitted))
