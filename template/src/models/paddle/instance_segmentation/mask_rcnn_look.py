"""How Mask R-CNN's heads look at proposals: the part of a feature pyramid inside each box."""

import paddle
from paddle.vision import ops

from src.models.paddle.instance_segmentation.pyramid import STRIDES

# places of proposals: their boxes, their image's number for each, and the number of their object in it
Positives = list[tuple[paddle.Tensor, paddle.Tensor]]  # of each image: boxes (n, 4) and their objects (n,)


def look(features: list[paddle.Tensor], boxes: list[paddle.Tensor], side: int) -> paddle.Tensor:
    """What the pyramid shows inside each box, (n, C, side, side); large ones at coarse maps (arXiv 1612.03144)."""
    counts = paddle.to_tensor([each.shape[0] for each in boxes], "int32")
    levels, order, numbers = ops.distribute_fpn_proposals(paddle.concat(boxes), 2, 5, 4, 224, rois_num=counts)
    seen = [
        ops.roi_align(feature, part, number, side, spatial_scale=1 / stride, sampling_ratio=2, aligned=False)
        for feature, part, number, stride in zip(features[:4], levels, numbers, STRIDES[:4], strict=True)
        if part.shape[0]
    ]
    return paddle.concat(seen)[order.flatten()]
