"""Adapt torchvision's detectors: to batches that are resized and normalised already, and to export in parts."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_map
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from src.kit.inference_scenes_detectors import add_region_pooling
from src.kit.lightning import download_state, weights_from_numpy, weights_to_numpy
from src.kit.scenes import OBJECT, fit_coco_weights
from src.kit.training import announce_weights

__all__ = [
    "Pyramid",
    "adapt",
    "export_mask_rcnn",
    "export_retinanet",
    "resize_by_products",
    "start_from_coco",
    "torchvision_kernels",
    "unpad",
]

MAX_GROWTH = math.log(1000 / 16)  # torchvision's limit of a predicted growth

# name -> a part, the shape of its input without the batch, and what completes its .onnx file
Parts = Mapping[str, tuple[nn.Module, Sequence[int], Callable[[Path], None] | None]]


class KeepImages(nn.Module):
    """Replaces `detector.transform`: leaves images, boxes and masks as they are."""

    def forward(
        self, images: torch.Tensor, objects: list[dict[str, torch.Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, torch.Tensor]] | None]:
        return ImageList(images, [tuple(images.shape[2:])] * len(images)), objects

    def postprocess(self, detections: list[dict[str, torch.Tensor]], *sizes: object) -> list[dict[str, torch.Tensor]]:
        return detections


def adapt(detector: nn.Module) -> None:
    """Make a RetinaNet or Mask R-CNN take batches as they are, and compute boxes and losses in float32 under autocast.

    torchvision computes boxes in the number format of its layers' outputs; in bfloat16, coordinates from 256 pixels on
    are multiples of 2 pixels, of the objects to learn from too.
    """
    detector.transform = KeepImages()
    for module in detector.modules():
        if isinstance(module, AnchorGenerator):
            module.register_forward_pre_hook(take_float32)
        elif isinstance(module, RetinaNetHead | RPNHead | FastRCNNPredictor | MaskRCNNPredictor):
            module.register_forward_hook(give_float32)


def take_float32(generator: nn.Module, inputs: Any) -> Any:
    """Before a generator of anchors, which reads the feature maps' shapes, device and number format only."""
    images, features = inputs
    return images, [each.new_empty((), dtype=torch.float32).expand(each.shape) for each in features]


def give_float32(head: nn.Module, inputs: Any, outputs: Any) -> Any:
    """After the last layers of a head."""
    return tree_map(torch.Tensor.float, outputs)


def unpad(kinds: torch.Tensor, **arrays: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """A batch's padded arrays (B, M, ...) as torchvision takes them: a mapping of each image's objects alone.

    Args:
        kinds: uint8 (B, M), as `pad_objects` says; crowds and padding are not learned.
    """
    alone = kinds == OBJECT
    order = alone.byte().argsort(dim=1, descending=True, stable=True)  # objects first
    counts = alone.sum(dim=1).tolist()  # the only value that a GPU is asked for
    rows = [order[k, :count] for k, count in enumerate(counts)]
    return [{name: array[k, own] for name, array in arrays.items()} for k, own in enumerate(rows)]


@contextmanager
def torchvision_kernels() -> Iterator[None]:
    """A context in which torchvision pools regions with its own kernel on a GPU, whatever `deterministic` is.

    With `deterministic=true` it would take a version in Python, which is compiled when it first runs and cuts targets
    out by looking at every pixel for each value. The kernel's outputs are repeatable; its gradient may differ in the
    last digits.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def resize_by_products(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize (B, C, H, W) bilinearly to `size` (h, w) as two matrix products, whose gradient is two more; in float32.

    `interpolate` without aligned corners gives the same. Where gradients must be repeatable on a GPU, that takes 55
    operations instead of one, and sorts each pixel four times.
    """
    x = x.float()
    with torch.autocast(x.device.type, enabled=False):  # as `interpolate` there
        for axis, outputs in ((2, size[0]), (3, size[1])):
            inputs = x.shape[axis]
            centres = (torch.arange(outputs, device=x.device) + 0.5) * (inputs / outputs) - 0.5  # among the inputs
            between = centres.clamp(0, inputs - 1)[:, None] - torch.arange(inputs, device=x.device)
            weights = (1 - between.abs()).clamp(min=0)  # (outputs, inputs)
            x = weights @ x if axis == 2 else x @ weights.T
    return x


def start_from_coco(detector: nn.Module, published: Any, class_names: Sequence[str] | None) -> None:
    """Load torchvision's weights of COCO into a RetinaNet or a Mask R-CNN on ResNet-50.

    Classes that COCO names alike are known at once; other classes keep their values.

    Args:
        published: torchvision's entry of the weights.
        class_names: of the detector's outputs, without a background.
    """
    announce_weights(str(published.url), "bsd-3-clause")
    weights = {name: value.numpy() for name, value in download_state(str(published.url)).items()}
    weights_from_numpy(detector, fit_coco_weights(weights, weights_to_numpy(detector), class_names))


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017, arXiv 1612.03144) as torchvision's detectors take their backbones.

    Args:
        body: images -> a list of maps, each half as large as the one before.
        widths: channels of these maps.
        width: channels of the pyramid's.
        extra: adds smaller maps; by default one that is half as large.
    """

    def __init__(self, body: nn.Module, widths: Sequence[int], width: int, extra: Any = None) -> None:
        super().__init__()
        self.body, self.out_channels = body, width
        self.fpn = FeaturePyramidNetwork(list(widths), width, extra or LastLevelMaxPool())

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps: dict[str, torch.Tensor] = self.fpn({str(level): each for level, each in enumerate(self.body(images))})
        return maps


class Dense(nn.Module):
    """RetinaNet up to its choice of boxes: images -> scores (B, A, K) in 0..1 and boxes (B, A, 4)."""

    def __init__(self, detector: RetinaNet, shape: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        self.anchors, self.levels = find_anchors(self.backbone, detector.anchor_generator, shape)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.head(list(self.backbone(images).values()))
        return outputs["cls_logits"].sigmoid(), decode_boxes(self.anchors, outputs["bbox_regression"])


class Proposals(nn.Module):
    """Mask R-CNN's first stage: images -> four feature maps, objectness (B, A) and proposed boxes (B, A, 4)."""

    def __init__(self, detector: MaskRCNN, shape: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.rpn.head
        self.anchors, self.levels = find_anchors(self.backbone, detector.rpn.anchor_generator, shape)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = list(self.backbone(images).values())
        logits, offsets = concat_box_prediction_layers(*self.head(features))
        count = len(self.anchors)
        boxes = decode_boxes(self.anchors, offsets.reshape(-1, count, 4))
        return *features[:4], logits.reshape(-1, count), boxes


class Classifier(nn.Module):
    """Mask R-CNN's second stage: pooled regions (n, C, 7, 7) -> scores (n, K) and offsets (n, K, 4)."""

    def __init__(self, detector: MaskRCNN) -> None:
        super().__init__()
        self.head, self.predictor = detector.roi_heads.box_head, detector.roi_heads.box_predictor

    def forward(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, offsets = self.predictor(self.head(regions))
        # torchvision counts the background as class 0
        return functional.softmax(logits, dim=1)[:, 1:], offsets.reshape(-1, logits.shape[1], 4)[:, 1:]


class Masks(nn.Module):
    """Mask R-CNN's masks: pooled regions (n, C, 14, 14) -> values (n, K, 28, 28) in 0..1."""

    def __init__(self, detector: MaskRCNN) -> None:
        super().__init__()
        self.head, self.predictor = detector.roi_heads.mask_head, detector.roi_heads.mask_predictor

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        return self.predictor(self.head(regions)).sigmoid()[:, 1:]


def find_anchors(backbone: nn.Module, generator: nn.Module, shape: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """The anchors (A, 4) of an image of (C, H, W), and how many each level has."""
    with torch.no_grad():
        images = next(backbone.parameters()).new_zeros((1, *shape))
        features = list(backbone(images).values())
        (anchors,) = generator(ImageList(images, [tuple(shape[1:])]), features)
    cells = [feature.shape[2] * feature.shape[3] for feature in features]
    return anchors, [len(anchors) // sum(cells) * count for count in cells]


def decode_boxes(anchors: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move anchors (A, 4) by offsets (B, A, 4): shift / size and logarithm of the growth (arXiv 1311.2524)."""
    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, :2] + anchors[:, 2:]) / 2
    centre = centre + offsets[..., :2] * size
    half = offsets[..., 2:].clamp(max=MAX_GROWTH).exp() * size / 2
    return torch.cat([centre - half, centre + half], dim=2)


def export_retinanet(detector: RetinaNet, shape: Sequence[int]) -> tuple[Parts, dict[str, Any]]:
    """The part to export and the settings of `kit/inference_scenes_detectors.py`, for images of `shape` (C, H, W)."""
    dense = Dense(detector, shape)
    settings = {
        "name": "retinanet",
        "levels": dense.levels,
        "score": detector.score_thresh,
        "candidates": detector.topk_candidates,
        "overlap": detector.nms_thresh,
        "detections": detector.detections_per_img,
    }
    return {"model": (dense, shape, None)}, settings


def export_mask_rcnn(detector: MaskRCNN, shape: Sequence[int]) -> tuple[Parts, dict[str, Any]]:
    """The parts to export, and the settings, likewise."""
    first, width = Proposals(detector, shape), detector.backbone.out_channels
    parts = {
        "model": (first, shape, None),
        "boxes": (Classifier(detector), (width, 7, 7), add_region_pooling),
        "masks": (Masks(detector), (width, 14, 14), add_region_pooling),
    }
    settings = {
        "name": "mask_rcnn",
        "levels": first.levels,
        "candidates": detector.rpn.pre_nms_top_n(),
        "kept": detector.rpn.pre_nms_top_n(),  # no limit within a level
        "proposals": detector.rpn.post_nms_top_n(),
        "side": detector.rpn.min_size,
        "detections": detector.roi_heads.detections_per_img,
    }
    return parts, settings
