"""Building blocks of Mask R-CNN in Paddle (He et al. 2017, arXiv 1703.06870): pyramid, proposals and heads.

Boxes are float32 (N, 4): x1, y1, x2, y2 in pixels.
"""

import math
from collections.abc import Mapping

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional, initializer
from paddle.vision import ops

from src.kit.paddle import initialise_like_torch
from src.kit.scenes_paddle import (
    body_maps,
    build_body,
    decode_boxes,
    encode_boxes,
    initialise_laterals,
    match_boxes,
    merge_maps,
)

__all__ = ["BoxHead", "FeaturePyramid", "MaskHead", "ProposalNetwork", "Size", "to_own_names", "to_torchvision"]

STRIDES = (4, 8, 16, 32, 64)  # of the pyramid's maps
RATIOS = (0.5, 1.0, 2.0)  # height to width of the anchors
EXAMPLES = 256  # anchors of an image that the proposal losses use
MIN_SCORE = 0.05  # of a detection
CLASS_OVERLAP = 0.5  # IoU above which non-maximum suppression drops the less confident of two boxes of a class
SCALE = (10.0, 10.0, 5.0, 5.0)  # of the second stage's offsets, which are small

Size = tuple[float, float]  # of a batch's images: height and width in pixels

# layers' names here, and in torchvision's Mask R-CNN
NAMES = {
    "pyramid.body": "backbone.body",
    **{f"pyramid.inner.{level}": f"backbone.fpn.inner_blocks.{level}.0" for level in range(4)},
    **{f"pyramid.outer.{level}": f"backbone.fpn.layer_blocks.{level}.0" for level in range(4)},
    "propose.hidden": "rpn.head.conv.0.0",
    "propose.object": "rpn.head.cls_logits",
    "propose.offsets": "rpn.head.bbox_pred",
    "box.layers.1": "roi_heads.box_head.fc6",
    "box.layers.3": "roi_heads.box_head.fc7",
    "box.score": "roi_heads.box_predictor.cls_score",
    "box.offsets": "roi_heads.box_predictor.bbox_pred",
    **{f"mask.layers.{2 * place}": f"roi_heads.mask_head.{place}.0" for place in range(4)},
    "mask.layers.8": "roi_heads.mask_predictor.conv5_mask",
    "mask.classify": "roi_heads.mask_predictor.mask_fcn_logits",
}
UNUSED = {"box.offsets": 4, "mask.classify": 1}  # rows that torchvision's last layers have for the background

Positives = list[tuple[paddle.Tensor, paddle.Tensor]]  # of each image: boxes (n, 4) and the index (n,) of their object


def to_torchvision(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Mask R-CNN's weights under torchvision's names, in whose last layers the background is the first class."""
    found = {}
    for name, array in arrays.items():
        layer = next(each for each in NAMES if name.startswith(f"{each}."))
        if layer == "box.score":
            array = np.roll(array, 1, axis=0)
        if layer in UNUSED:
            array = np.concatenate([np.zeros_like(array[: UNUSED[layer]]), array])
        found[NAMES[layer] + name.removeprefix(layer)] = array
    return found


def to_own_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Invert `to_torchvision`."""
    found = {}
    for name, array in arrays.items():
        layer, theirs = next(pair for pair in NAMES.items() if name.startswith(f"{pair[1]}."))
        if layer == "box.score":
            array = np.roll(array, -1, axis=0)
        found[layer + name.removeprefix(theirs)] = array[UNUSED.get(layer, 0) :]
    return found


def sample_examples(kind: paddle.Tensor, count: int, share: float) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Draw indices of at most `share` x `count` positive examples (1), and of negative ones (-1) for the rest."""
    positive = draw_positions(kind == 1, int(count * share))
    return positive, draw_positions(kind == -1, count - positive.shape[0])


def draw_positions(wanted: paddle.Tensor, count: int) -> paddle.Tensor:
    """Draw at most `count` indices of true values, int64 (n,)."""
    places = wanted.nonzero().flatten()
    return places[paddle.randperm(places.shape[0])[:count]] if places.shape[0] else places


def offset_loss(offsets: paddle.Tensor, true: paddle.Tensor) -> paddle.Tensor:
    """Return the sum of smooth L1 losses, quadratic below 1/9 (Girshick 2015, arXiv 1504.08083)."""
    return 9 * functional.smooth_l1_loss(offsets, true, reduction="sum", delta=1 / 9)


class FeaturePyramid(nn.Layer):
    """A ResNet with a feature pyramid (Lin et al. 2016, arXiv 1612.03144).

    float32 (B, C, H, W) -> five maps of `width` channels, at 1/4, 1/8, 1/16, 1/32 and 1/64 of the size.
    """

    def __init__(self, depth: int, channels: int, width: int) -> None:
        super().__init__()
        self.body, widths = build_body(depth, channels)
        self.inner = nn.LayerList([nn.Conv2D(inputs, width, 1) for inputs in widths])
        self.outer = nn.LayerList([nn.Conv2D(width, width, 3, padding=1) for _ in widths])
        initialise_laterals([*self.inner, *self.outer])

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        maps = merge_maps(body_maps(self.body, images), self.inner, self.outer)
        return [*maps, functional.max_pool2d(maps[-1], 1, stride=2)]


class ProposalNetwork(nn.Layer):
    """Propose `count` boxes an image that may hold an object, from five feature maps.

    Ren et al. 2015, arXiv 1506.01497.
    """

    def __init__(self, width: int, image_size: int, count: int, rounded: bool = False) -> None:
        """`rounded`: anchors have whole numbers of pixels on each side of their centre, as torchvision's."""
        super().__init__()
        self.rounded = rounded
        self.smallest = 2 ** math.floor(math.log2(image_size / 16))  # 32 pixels in an image of 800
        self.count = count
        self.hidden = nn.Conv2D(width, width, 3, padding=1)
        self.object = nn.Conv2D(width, len(RATIOS), 1)
        self.offsets = nn.Conv2D(width, 4 * len(RATIOS), 1)
        for layer in (self.hidden, self.object, self.offsets):
            initializer.Normal(std=0.01)(layer.weight)

    def forward(
        self, features: list[paddle.Tensor], size: Size, true_boxes: list[paddle.Tensor] | None = None
    ) -> tuple[list[paddle.Tensor], list[paddle.Tensor]]:
        """Return each image's proposals (n, 4) and, given its `true_boxes` (M, 4), both losses."""
        hidden = [functional.relu(self.hidden(feature)) for feature in features]
        scores, offsets = [self.object(each) for each in hidden], [self.offsets(each) for each in hidden]
        anchors = [self.anchors(feature.shape[2:], level) for level, feature in enumerate(features)]
        proposals = self.propose(scores, offsets, anchors, size)
        if true_boxes is None:
            return proposals, []
        flat_scores = paddle.concat([each.transpose([0, 2, 3, 1]).flatten(1) for each in scores], axis=1)
        flat = [each.transpose([0, 2, 3, 1]).reshape([each.shape[0], -1, 4]) for each in offsets]
        all_anchors = paddle.concat([each.reshape([-1, 4]) for each in anchors])
        return proposals, proposal_losses(flat_scores, paddle.concat(flat, axis=1), all_anchors, true_boxes)

    def anchors(self, shape: list[int], level: int) -> paddle.Tensor:
        """Return the boxes (H, W, 3, 4) around the cells of a feature map."""
        side = float(self.smallest << level)
        ratios = paddle.to_tensor(RATIOS).sqrt()
        half = paddle.stack([side / ratios, side * ratios], axis=1) / 2  # (3, 2): width and height
        half = half.round() if self.rounded else half
        y, x = paddle.meshgrid(paddle.arange(shape[0], dtype="float32"), paddle.arange(shape[1], dtype="float32"))
        centre = (paddle.stack([x, y], axis=2) * STRIDES[level]).unsqueeze(2)  # (H, W, 1, 2)
        return paddle.concat([centre - half, centre + half], axis=3)

    @paddle.no_grad()
    def propose(
        self, scores: list[paddle.Tensor], offsets: list[paddle.Tensor], anchors: list[paddle.Tensor], size: Size
    ) -> list[paddle.Tensor]:
        """Return the most confident boxes of all levels after non-maximum suppression at an IoU of 0.7."""
        batch = scores[0].shape[0]
        found: list[list[tuple[paddle.Tensor, paddle.Tensor]]] = [[] for _ in range(batch)]
        sizes, levels = paddle.to_tensor([size] * batch), []
        for score, offset, anchor in zip(scores, offsets, anchors, strict=True):
            boxes, confidence, counts = ops.generate_proposals(
                functional.sigmoid(score.astype("float32")),
                offset.astype("float32"),
                sizes,
                anchor,
                paddle.ones_like(anchor),
                pre_nms_top_n=2 * self.count,
                post_nms_top_n=self.count,
                nms_thresh=0.7,
                min_size=1.0,
                return_rois_num=True,
            )
            levels.append((boxes, confidence, counts.cumsum()))
        every = paddle.stack([ends for _, _, ends in levels]).tolist()  # at once: a GPU is waited for
        for (boxes, confidence, _), ends in zip(levels, every, strict=True):
            for image, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                found[image].append((boxes[start:end], confidence[start:end].flatten()))
        return [self.top_boxes(*(paddle.concat(parts) for parts in zip(*each, strict=True))) for each in found]

    def top_boxes(self, boxes: paddle.Tensor, scores: paddle.Tensor) -> paddle.Tensor:
        """Return the `count` boxes with the highest scores."""
        return boxes[scores.topk(min(self.count, scores.shape[0]))[1]]


def proposal_losses(
    scores: paddle.Tensor, offsets: paddle.Tensor, anchors: paddle.Tensor, true_boxes: list[paddle.Tensor]
) -> list[paddle.Tensor]:
    """Return objectness and offset loss of scores (B, N) and offsets (B, N, 4) of the anchors (N, 4)."""
    kinds, wanted = [], []
    for true in true_boxes:
        owner, kind = match_boxes(anchors, true, 0.3, 0.7, each=True)
        positive, negative = sample_examples(kind, EXAMPLES, 0.5)
        kinds.append((positive, negative))
        wanted.append(encode_boxes(anchors[positive], true[owner[positive]]) if positive.shape[0] else None)
    total = max(1, sum(positive.shape[0] + negative.shape[0] for positive, negative in kinds))
    score, offset = 0.0 * scores.sum(), 0.0 * offsets.sum()
    for image, ((positive, negative), true) in enumerate(zip(kinds, wanted, strict=True)):
        chosen = scores[image][paddle.concat([positive, negative])]
        label = paddle.concat([paddle.ones([positive.shape[0]]), paddle.zeros([negative.shape[0]])])
        score = score + functional.binary_cross_entropy_with_logits(chosen, label, reduction="sum")
        if true is not None:
            offset = offset + offset_loss(offsets[image][positive], true)
    return [score / total, offset / total]


def pool_regions(features: list[paddle.Tensor], boxes: list[paddle.Tensor], side: int) -> paddle.Tensor:
    """Pool the features inside each box to (n, C, side, side), large boxes from coarse maps (arXiv 1612.03144)."""
    counts = paddle.to_tensor([each.shape[0] for each in boxes], "int32")
    levels, order, numbers = ops.distribute_fpn_proposals(paddle.concat(boxes), 2, 5, 4, 224, rois_num=counts)
    seen = [
        ops.roi_align(feature, part, number, side, spatial_scale=1 / stride, sampling_ratio=2, aligned=False)
        for feature, part, number, stride in zip(features[:4], levels, numbers, STRIDES[:4], strict=True)
        if part.shape[0]
    ]
    return paddle.concat(seen)[order.flatten()]


class BoxHead(nn.Layer):
    """Classify each proposal and predict the offsets to its object for each class."""

    def __init__(self, width: int, classes: int, examples: int) -> None:
        super().__init__()
        self.classes, self.examples = classes, examples
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(49 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 4 * width), nn.ReLU()
        )
        self.score = nn.Linear(4 * width, classes + 1)  # the last class is the background
        self.offsets = nn.Linear(4 * width, 4 * classes)
        initialise_like_torch(self)

    def forward(self, features: list[paddle.Tensor], boxes: list[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return logits (n, K + 1) and offsets (n, K, 4) of all images' boxes."""
        hidden = self.layers(pool_regions(features, boxes, 7))
        return self.score(hidden), self.offsets(hidden).reshape([-1, self.classes, 4])

    def losses(
        self,
        features: list[paddle.Tensor],
        proposals: list[paddle.Tensor],
        true: list[paddle.Tensor],
        kinds: list[paddle.Tensor],
    ) -> tuple[list[paddle.Tensor], Positives]:
        """Return class and offset losses, and the proposals that match objects."""
        boxes, labels, wanted, positives = [], [], [], []
        for found, objects, kind in zip(proposals, true, kinds, strict=True):
            owner, quality = match_boxes(found, objects, 0.5, 0.5)
            positive, negative = sample_examples(quality, self.examples, 0.25)
            boxes.append(paddle.concat([found[positive], found[negative]]))
            positives.append((found[positive], owner[positive]))
            labels.append(paddle.full([negative.shape[0]], self.classes, "int64"))
            if positive.shape[0]:
                labels.insert(-1, kind[owner[positive]])
                wanted.append(encode_boxes(found[positive], objects[owner[positive]]) * paddle.to_tensor(SCALE))
        scores, offsets = self(features, boxes)
        label = paddle.concat(labels)
        score = functional.cross_entropy(scores, label)
        on = (label < self.classes).nonzero().flatten()
        if not wanted:
            return [score, 0.0 * offsets.sum()], positives
        own = offsets.gather_nd(paddle.stack([on, label[on]], axis=1))
        return [score, offset_loss(own, paddle.concat(wanted)) / label.shape[0]], positives

    def detect(self, features: list[paddle.Tensor], proposals: paddle.Tensor, size: Size, most: int) -> paddle.Tensor:
        """Return the detections of one image, float32 (n, 6) of box, score and class, most confident first."""
        scores, offsets = self(features, [proposals])
        probability = functional.softmax(scores.astype("float32"), axis=1)[:, : self.classes]
        sure = (probability >= MIN_SCORE).nonzero()  # (n, 2): proposal and class
        if sure.shape[0] == 0:
            return paddle.zeros([0, 6])
        boxes = decode_boxes(proposals[sure[:, 0]], offsets.gather_nd(sure) / paddle.to_tensor(SCALE)).clip(0.0)
        boxes = paddle.minimum(boxes, paddle.to_tensor([size[1], size[0]] * 2))
        score = probability.gather_nd(sure)
        kept = ops.nms(boxes, CLASS_OVERLAP, score, sure[:, 1], list(range(self.classes)), min(most, score.shape[0]))
        return paddle.concat(
            [boxes[kept], score[kept].unsqueeze(1), sure[:, 1][kept].astype("float32").unsqueeze(1)], axis=1
        )


class MaskHead(nn.Layer):
    """Predict a mask of 28 x 28 over the box, for each class."""

    side = 28

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Conv2D(width, width, 3, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Conv2DTranspose(width, width, 2, stride=2), nn.ReLU())
        self.classify = nn.Conv2D(width, classes, 1)
        initialise_like_torch(self)

    def forward(
        self, features: list[paddle.Tensor], boxes: list[paddle.Tensor], labels: paddle.Tensor
    ) -> paddle.Tensor:
        """Return logits (n, 28, 28) of each box's own class."""
        masks = self.classify(self.layers(pool_regions(features, boxes, self.side // 2)))
        return masks.gather_nd(paddle.stack([paddle.arange(labels.shape[0]), labels], axis=1))

    def values(self, features: list[paddle.Tensor], boxes: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Return mask values (n, 28, 28) in 0..1 for the boxes of one image."""
        return functional.sigmoid(self(features, [boxes], labels).astype("float32"))

    def loss(
        self,
        features: list[paddle.Tensor],
        positives: Positives,
        kinds: list[paddle.Tensor],
        masks: list[paddle.Tensor],
    ) -> paddle.Tensor:
        """Return the binary cross-entropy with each object's mask, cropped to its proposal."""
        labels, wanted = [], []
        for (boxes, owner), kind, mask in zip(positives, kinds, masks, strict=True):
            if boxes.shape[0]:
                labels.append(kind[owner])
                ones = paddle.ones([boxes.shape[0]], "int32")
                whole = mask[owner].astype("float32").unsqueeze(1)
                wanted.append(ops.roi_align(whole, boxes, ones, self.side, aligned=False).squeeze(1))
        if not labels:
            return 0.0 * self.classify.weight.sum()
        logits = self(features, [boxes for boxes, _ in positives], paddle.concat(labels))
        return functional.binary_cross_entropy_with_logits(logits, paddle.concat(wanted))
