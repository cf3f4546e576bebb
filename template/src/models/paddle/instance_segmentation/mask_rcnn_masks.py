"""Mask R-CNN's mask for each detection (He et al. 2017, arXiv 1703.06870)."""

import paddle
from paddle import nn
from paddle.nn import functional
from paddle.vision import ops

from src.kit.paddle import initialise
from src.models.paddle.instance_segmentation.mask_rcnn_look import Positives, look


class MaskHead(nn.Layer):
    """A mask of 28 x 28 over the box, for each class."""

    side = 28

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Conv2D(width, width, 3, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Conv2DTranspose(width, width, 2, stride=2), nn.ReLU())
        self.classify = nn.Conv2D(width, num_classes, 1)
        initialise(self)

    def forward(
        self, features: list[paddle.Tensor], boxes: list[paddle.Tensor], labels: paddle.Tensor
    ) -> paddle.Tensor:
        """Logits (n, 28, 28) of each box's own class."""
        masks = self.classify(self.layers(look(features, boxes, self.side // 2)))
        return masks.gather_nd(paddle.stack([paddle.arange(labels.shape[0]), labels], axis=1))

    def values(self, features: list[paddle.Tensor], boxes: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Values (n, 28, 28) in 0..1 for the boxes of one image."""
        return functional.sigmoid(self(features, [boxes], labels).astype("float32"))

    def loss(
        self,
        features: list[paddle.Tensor],
        positives: Positives,
        kinds: list[paddle.Tensor],
        masks: list[paddle.Tensor],
    ) -> paddle.Tensor:
        """Binary cross-entropy with the part of each object's mask that its proposal shows."""
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
