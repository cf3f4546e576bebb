"""The region proposal network (Ren et al. 2015, arXiv 1506.01497): where objects might be, whatever they are."""

import math

import paddle
from paddle import nn
from paddle.nn import functional, initializer
from paddle.vision import ops

from src.models.paddle.instance_segmentation.boxes import encode, match, offset_loss, sample
from src.models.paddle.instance_segmentation.pyramid import STRIDES

RATIOS = (0.5, 1.0, 2.0)  # height to width
EXAMPLES = 256  # anchors of an image that the losses look at


class ProposalNetwork(nn.Layer):
    """From five feature maps to `count` boxes an image that may hold an object."""

    def __init__(self, width: int, image_size: int, count: int) -> None:
        super().__init__()
        self.smallest = 2 ** math.floor(math.log2(image_size / 16))  # 32 pixels in an image of 800
        self.count = count
        self.hidden = nn.Conv2D(width, width, 3, padding=1)
        self.object = nn.Conv2D(width, len(RATIOS), 1)
        self.offsets = nn.Conv2D(width, 4 * len(RATIOS), 1)
        for layer in (self.hidden, self.object, self.offsets):
            initializer.Normal(std=0.01)(layer.weight)

    def forward(
        self, features: list[paddle.Tensor], size: float, true_boxes: list[paddle.Tensor] | None = None
    ) -> tuple[list[paddle.Tensor], list[paddle.Tensor]]:
        """Proposals (n, 4) of each image of `size` pixels and, with the `true_boxes` (M, 4) of each, both losses."""
        hidden = [functional.relu(self.hidden(feature)) for feature in features]
        scores, offsets = [self.object(each) for each in hidden], [self.offsets(each) for each in hidden]
        anchors = [self.anchors(feature.shape[2:], level) for level, feature in enumerate(features)]
        proposals = self.propose(scores, offsets, anchors, size)
        if true_boxes is None:
            return proposals, []
        flat_scores = paddle.concat([each.transpose([0, 2, 3, 1]).flatten(1) for each in scores], axis=1)
        flat = [each.transpose([0, 2, 3, 1]).reshape([each.shape[0], -1, 4]) for each in offsets]
        all_anchors = paddle.concat([each.reshape([-1, 4]) for each in anchors])
        return proposals, losses(flat_scores, paddle.concat(flat, axis=1), all_anchors, true_boxes)

    def anchors(self, shape: list[int], level: int) -> paddle.Tensor:
        """Boxes (H, W, 3, 4) around the cells of a feature map."""
        side = float(self.smallest << level)
        ratios = paddle.to_tensor(RATIOS).sqrt()
        half = paddle.stack([side / ratios, side * ratios], axis=1) / 2  # (3, 2): width and height
        y, x = paddle.meshgrid(paddle.arange(shape[0], dtype="float32"), paddle.arange(shape[1], dtype="float32"))
        centre = (paddle.stack([x, y], axis=2) * STRIDES[level]).unsqueeze(2)  # (H, W, 1, 2)
        return paddle.concat([centre - half, centre + half], axis=3)

    @paddle.no_grad()
    def propose(
        self, scores: list[paddle.Tensor], offsets: list[paddle.Tensor], anchors: list[paddle.Tensor], size: float
    ) -> list[paddle.Tensor]:
        """The surest boxes of all levels, without those that overlap a surer one by 0.7."""
        batch = scores[0].shape[0]
        found: list[list[tuple[paddle.Tensor, paddle.Tensor]]] = [[] for _ in range(batch)]
        sizes = paddle.full([batch, 2], size)
        for score, offset, anchor in zip(scores, offsets, anchors, strict=True):
            boxes, sure, counts = ops.generate_proposals(
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
            ends = counts.cumsum().tolist()
            for image, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                found[image].append((boxes[start:end], sure[start:end].flatten()))
        return [self.surest(*(paddle.concat(parts) for parts in zip(*each, strict=True))) for each in found]

    def surest(self, boxes: paddle.Tensor, sure: paddle.Tensor) -> paddle.Tensor:
        """The `count` boxes with the highest scores."""
        return boxes[sure.topk(min(self.count, sure.shape[0]))[1]]


def losses(
    scores: paddle.Tensor, offsets: paddle.Tensor, anchors: paddle.Tensor, true_boxes: list[paddle.Tensor]
) -> list[paddle.Tensor]:
    """Whether an anchor is an object, and its offset to it; scores (B, N), offsets (B, N, 4), anchors (N, 4)."""
    kinds, wanted = [], []
    for true in true_boxes:
        owner, kind = match(anchors, true, 0.3, 0.7, each=True)
        positive, negative = sample(kind, EXAMPLES, 0.5)
        kinds.append((positive, negative))
        wanted.append(encode(anchors[positive], true[owner[positive]]) if positive.shape[0] else None)
    total = max(1, sum(positive.shape[0] + negative.shape[0] for positive, negative in kinds))
    score, offset = 0.0 * scores.sum(), 0.0 * offsets.sum()
    for image, ((positive, negative), true) in enumerate(zip(kinds, wanted, strict=True)):
        chosen = scores[image][paddle.concat([positive, negative])]
        label = paddle.concat([paddle.ones([positive.shape[0]]), paddle.zeros([negative.shape[0]])])
        score = score + functional.binary_cross_entropy_with_logits(chosen, label, reduction="sum")
        if true is not None:
            offset = offset + offset_loss(offsets[image][positive], true)
    return [score / total, offset / total]
