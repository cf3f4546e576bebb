"""What Mask R-CNN does with each proposal: class, better box and mask (He et al. 2017, arXiv 1703.06870)."""

import paddle
from paddle import nn
from paddle.nn import functional
from paddle.vision import ops

from src.kit.paddle import initialise
from src.models.paddle.instance_segmentation.boxes import decode, encode, match, offset_loss, sample
from src.models.paddle.instance_segmentation.mask_rcnn_look import Positives, look

LEAST_SCORE = 0.05
CLASS_OVERLAP = 0.5  # of two boxes of a class, the surer one stays
SCALE = (10.0, 10.0, 5.0, 5.0)  # of the offsets, which are small in a second stage


class BoxHead(nn.Layer):
    """The class of each proposal, and the offsets to its object for each class."""

    def __init__(self, width: int, num_classes: int, examples: int) -> None:
        super().__init__()
        self.classes, self.examples = num_classes, examples
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(49 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 4 * width), nn.ReLU()
        )
        self.score = nn.Linear(4 * width, num_classes + 1)  # the last class is the background
        self.offsets = nn.Linear(4 * width, 4 * num_classes)
        initialise(self)

    def forward(self, features: list[paddle.Tensor], boxes: list[paddle.Tensor]) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits (n, K + 1) and offsets (n, K, 4) of all images' boxes."""
        hidden = self.layers(look(features, boxes, 7))
        return self.score(hidden), self.offsets(hidden).reshape([-1, self.classes, 4])

    def losses(
        self,
        features: list[paddle.Tensor],
        proposals: list[paddle.Tensor],
        true: list[paddle.Tensor],
        kinds: list[paddle.Tensor],
    ) -> tuple[list[paddle.Tensor], Positives]:
        """Class and offset losses, and the proposals that lie on objects."""
        boxes, labels, wanted, positives = [], [], [], []
        for found, objects, kind in zip(proposals, true, kinds, strict=True):
            owner, quality = match(found, objects, 0.5, 0.5)
            positive, negative = sample(quality, self.examples, 0.25)
            boxes.append(paddle.concat([found[positive], found[negative]]))
            positives.append((found[positive], owner[positive]))
            labels.append(paddle.full([negative.shape[0]], self.classes, "int64"))
            if positive.shape[0]:
                labels.insert(-1, kind[owner[positive]])
                wanted.append(encode(found[positive], objects[owner[positive]]) * paddle.to_tensor(SCALE))
        scores, offsets = self(features, boxes)
        label = paddle.concat(labels)
        score = functional.cross_entropy(scores, label)
        on = (label < self.classes).nonzero().flatten()
        if not wanted:
            return [score, 0.0 * offsets.sum()], positives
        own = offsets.gather_nd(paddle.stack([on, label[on]], axis=1))
        return [score, offset_loss(own, paddle.concat(wanted)) / label.shape[0]], positives

    def detect(self, features: list[paddle.Tensor], proposals: paddle.Tensor, size: float, most: int) -> paddle.Tensor:
        """The detections of one image, float32 (n, 6): box, score, class number; the surest first."""
        scores, offsets = self(features, [proposals])
        probability = functional.softmax(scores.astype("float32"), axis=1)[:, : self.classes]
        sure = (probability >= LEAST_SCORE).nonzero()  # (n, 2): proposal and class
        if sure.shape[0] == 0:
            return paddle.zeros([0, 6])
        boxes = decode(proposals[sure[:, 0]], offsets.gather_nd(sure) / paddle.to_tensor(SCALE)).clip(0.0, size)
        score = probability.gather_nd(sure)
        kept = ops.nms(boxes, CLASS_OVERLAP, score, sure[:, 1], list(range(self.classes)), min(most, score.shape[0]))
        return paddle.concat(
            [boxes[kept], score[kept].unsqueeze(1), sure[:, 1][kept].astype("float32").unsqueeze(1)], axis=1
        )
