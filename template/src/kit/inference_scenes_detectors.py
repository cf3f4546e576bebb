"""RetinaNet and Mask R-CNN after their export: what they choose by values is done in NumPy, between parts in ONNX.

Both choose boxes by their scores, so that an exporter cannot turn them into one graph. Boxes are float32 (..., 4): x1,
y1, x2, y2 in pixels. The settings are in the card's `output["detector"]`; a network writes them in `detector`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["add_region_pooling", "detect", "non_maximum_suppression"]

MAX_GROWTH = math.log(1000 / 16)  # limit of a predicted growth: exp of more would overflow
SCALE = np.array([10, 10, 5, 5], np.float32)  # of the second stage's offsets, which are small
LEVELS = 4  # feature maps that regions are pooled from, at 1/4 to 1/32 of the size
CANONICAL = 224  # a region of this side is pooled from the third map (Lin et al. 2016, arXiv 1612.03144)
SAMPLES = 2  # per axis and bin of a pooled region

# computes a part: (its name, arrays by input name) -> its outputs
Run = Callable[[str, Mapping[str, np.ndarray]], Sequence[np.ndarray]]


def detect(run: Run, images: np.ndarray, detector: Mapping[str, Any]) -> np.ndarray:
    """The rows that the network gives in evaluation, float32 (B, D, 6 or more), for images float32 (B, C, S, S).

    Args:
        detector: `name` ("retinanet" or "mask_rcnn"), and the settings that the function of that name reads.
    """
    return {"retinanet": detect_dense, "mask_rcnn": detect_in_stages}[detector["name"]](run, images, detector)


def detect_dense(run: Run, images: np.ndarray, detector: Mapping[str, Any]) -> np.ndarray:
    """RetinaNet: part "model" gives class scores (B, A, K) in 0..1 and boxes (B, A, 4), level after level.

    Args:
        detector: `levels` (boxes of each level), `score` and `candidates` (the least score, and the most boxes of a
            level that are looked at), `overlap` (IoU for non-maximum suppression), `detections` (rows an image).
    """
    all_scores, all_boxes = run("model", {"input": images})
    ends = np.cumsum(detector["levels"])[:-1]
    rows = np.zeros((len(images), detector["detections"], 6), np.float32)
    for row, scores, boxes in zip(rows, all_scores, all_boxes, strict=True):
        levels = [
            top_pairs(*level, detector["score"], detector["candidates"])
            for level in zip(np.split(scores, ends), np.split(boxes, ends), strict=True)
        ]
        found = np.concatenate(levels)
        found[:, :4] = found[:, :4].clip(0, images.shape[2])
        kept = non_maximum_suppression(found[:, :4], found[:, 4], found[:, 5], detector["overlap"])[: len(row)]
        row[: len(kept)] = found[kept]
    return rows


def top_pairs(scores: np.ndarray, boxes: np.ndarray, least: float, most: int) -> np.ndarray:
    """The most confident pairs of box and class, (n, 6): box, score, class."""
    place, kind = np.nonzero(scores > least)
    values = scores[place, kind]
    order = np.argsort(-values, kind="stable")[:most]
    return np.concatenate([boxes[place[order]], values[order, None], kind[order, None]], axis=1).astype(np.float32)


def detect_in_stages(run: Run, images: np.ndarray, detector: Mapping[str, Any]) -> np.ndarray:
    """Mask R-CNN: part "model" gives four feature maps, objectness (B, A) in 0..1 and proposed boxes (B, A, 4).

    Parts "boxes" and "masks" pool regions of the feature maps (see `add_region_pooling`): "boxes" gives scores (n, K)
    and offsets (n, K, 4), "masks" gives values (n, K, 28, 28) in 0..1.

    Args:
        detector: `levels` (boxes of each level), `candidates` (the most proposals of a level before non-maximum
            suppression), `kept` (those after it), `proposals` (those of all levels), `side` (the least of a proposal in
            pixels), and `detections` (rows an image).
    """
    *features, objectness, boxes = run("model", {"input": images})
    side = 28
    rows = np.zeros((len(images), detector["detections"], 6 + side**2), np.float32)
    for number, row in enumerate(rows):
        own = {f"feature{level}": feature[number : number + 1] for level, feature in enumerate(features)}
        proposals = propose(objectness[number], boxes[number].clip(0, images.shape[2]), detector)
        found = classify(run, own, proposals, images.shape[2])[: len(row)]
        if len(found):
            regions, order = split_levels(found[:, :4])
            (masks,) = run("masks", own | regions)
            row[: len(found), :6] = found
            row[: len(found), 6:] = masks[order, found[:, 5].astype(int)].reshape(len(found), -1)
    return rows


def propose(scores: np.ndarray, boxes: np.ndarray, detector: Mapping[str, Any]) -> np.ndarray:
    """The most confident boxes (n, 4) of all levels after non-maximum suppression within each."""
    ends = np.cumsum(detector["levels"])[:-1]
    chosen, confidence = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for score, box in zip(np.split(scores, ends), np.split(boxes, ends), strict=True):
        order = np.argsort(-score, kind="stable")[: detector["candidates"]]
        large = ((box[order, 2:] - box[order, :2]) >= detector["side"]).all(axis=1)
        order = order[large]
        kept = order[non_maximum_suppression(box[order], score[order], np.zeros(len(order)), 0.7)][: detector["kept"]]
        chosen.append(box[kept])
        confidence.append(score[kept])
    best = np.argsort(-np.concatenate(confidence), kind="stable")[: detector["proposals"]]
    return np.concatenate(chosen)[best]


def classify(run: Run, features: dict[str, np.ndarray], proposals: np.ndarray, size: int) -> np.ndarray:
    """Detections of one image, (n, 6): box, score and class, most confident first."""
    if not len(proposals):
        return np.zeros((0, 6), np.float32)
    regions, order = split_levels(proposals)
    scores, offsets = (output[order] for output in run("boxes", features | regions))
    place, kind = np.nonzero(scores > 0.05)
    boxes = decode_boxes(proposals[place], offsets[place, kind] / SCALE).clip(0, size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 0.01).all(axis=1)
    boxes, place, kind = boxes[large], place[large], kind[large]
    kept = non_maximum_suppression(boxes, scores[place, kind], kind, 0.5)
    columns = [boxes, scores[place, kind, None], kind[:, None]]
    return np.concatenate(columns, axis=1).astype(np.float32)[kept]


def decode_boxes(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move boxes (N, 4) by offsets (N, 4): shift / size and logarithm of the growth (arXiv 1311.2524)."""
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    centre = centre + offsets[:, :2] * size
    half = np.exp(offsets[:, 2:].clip(max=MAX_GROWTH)) * size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, overlap: float) -> np.ndarray:
    """The indices to keep, int64 (n,), most confident first.

    A box is dropped where one of its group (its class, or its level) with a higher score has a larger IoU with it than
    `overlap`.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, groups = boxes[order], groups[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    alive, kept = np.ones(len(order), bool), []
    for place in range(len(order)):
        if not alive[place]:
            continue
        kept.append(place)
        later = place + 1 + np.flatnonzero(alive[place + 1 :] & (groups[place + 1 :] == groups[place]))
        corner = np.minimum(boxes[later, 2:], boxes[place, 2:]) - np.maximum(boxes[later, :2], boxes[place, :2])
        shared = corner.clip(min=0).prod(axis=1)
        alive[later[shared > overlap * (areas[later] + areas[place] - shared)]] = False
    return order[kept]


def split_levels(boxes: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The regions of each feature map, and int64 (n,) where each box's row is in the outputs."""
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    levels = np.floor(np.log2(side / CANONICAL + 1e-8) + 2).clip(0, LEVELS - 1)
    places = [np.flatnonzero(levels == level) for level in range(LEVELS)]
    regions = {f"regions{level}": boxes[chosen].astype(np.float32) for level, chosen in enumerate(places)}
    return regions, np.argsort(np.concatenate(places), kind="stable")


def add_region_pooling(path: Path) -> None:
    """Put pooling in front of an .onnx file whose "input" is pooled regions (n, C, side, side).

    It then takes feature0 to feature3 (1, C, H, W) and regions0 to regions3 (n, 4).
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(path)
    width, side = (model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value for axis in (1, 2))
    nodes, inputs, pooled = [], [], []
    for level in range(LEVELS):
        names = [f"feature{level}", f"regions{level}"]
        shapes: list[list[Any]] = [[1, width, f"height{level}", f"width{level}"], [f"count{level}", 4]]
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(names, shapes, strict=True)
        ]
        # every region is of the first and only image
        nodes.append(helper.make_node("Shape", [names[1]], [f"length{level}"], end=1))
        zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
        nodes.append(helper.make_node("ConstantOfShape", [f"length{level}"], [f"image{level}"], value=zero))
        window: dict[str, Any] = {"output_height": side, "output_width": side, "sampling_ratio": SAMPLES}
        window |= {"spatial_scale": 2.0 ** -(level + 2), "coordinate_transformation_mode": "output_half_pixel"}
        pooled.append(f"pooled{level}")
        nodes.append(helper.make_node("RoiAlign", [*names, f"image{level}"], [pooled[-1]], **window))
    nodes.append(helper.make_node("Concat", pooled, ["pooled"], axis=0))
    shape = ["regions", width, side, side]
    output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "pooling", inputs, [output])
    pooling = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    path.write_bytes(onnx.compose.merge_models(pooling, model, [("pooled", "input")]).SerializeToString())
