"""Pictures of what was predicted in images, beside the truth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.scenes.augment import build
from src.kit.scenes.draw_scenes import draw_scenes
from src.kit.scenes.objects import Objects
from src.kit.scenes.samples import IGNORE, Sample, Scenes
from src.kit.scenes.task import class_map

SHOWN = 8
LEAST_SCORE = 0.25  # less sure predictions would hide the image


def draw_objects(kept: Sequence[tuple[Objects, Objects]], dataset: Scenes, cfg: DictConfig, path: Path) -> Path:
    """Draw the first images of a data set, each twice: with its true and with its predicted objects."""
    drawn: list[Sample] = []
    scores: list[np.ndarray | None] = []
    for index, (predicted, _) in enumerate(kept[:SHOWN]):
        sample = read(dataset, index, cfg)
        truth = boxes_only(sample) if predicted.outlines is None else sample
        found, sure = with_objects(truth, predicted)
        drawn += [truth, found]
        scores += [None, sure]
    title = f"true (left) and predicted with a score of {LEAST_SCORE:.0%} or more (right)"
    return draw_scenes(drawn, dataset.classes, title, path, scores)


def draw_class_maps(examples: Sequence[tuple[int, np.ndarray]], dataset: Scenes, cfg: DictConfig, path: Path) -> Path:
    """Draw the images of these numbers, each twice: with its true and with its predicted class map (H, W)."""
    drawn = []
    for index, predicted in examples[:SHOWN]:
        sample = read(dataset, index, cfg)
        drawn += [with_class_map(sample, shown, dataset) for shown in (class_map(sample), predicted)]
    return draw_scenes(drawn, dataset.classes, "true (left) and predicted (right)", path)


def draw_truth(
    dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path, show: Callable[[Sample], Sample]
) -> Path:
    """Draw the first images of these numbers with what `show` leaves of their annotations."""
    samples = [show(read(dataset, int(index), cfg)) for index in chosen[:SHOWN]]
    return draw_scenes(samples, dataset.classes, f"{cfg.data.name}: training images", path)


def read(dataset: Scenes, index: int, cfg: DictConfig) -> Sample:
    """One image as the network saw it."""
    return build("none", cfg.data.image_size, dataset.flippable)(dataset.read(index), np.random.default_rng(0))


def boxes_only(sample: Sample) -> Sample:
    """The same image without outlines and class map."""
    return replace(sample, masks=None, semantic=None)


def with_class_map(sample: Sample, class_map: np.ndarray, dataset: Scenes) -> Sample:
    """The same image with nothing but this class map; a background that is no class of the data set is not painted."""
    if not dataset.has_class_maps:
        background = (class_map == 0) | (class_map == IGNORE)
        class_map = np.where(background, IGNORE, class_map - 1).astype(np.uint8)
    boxes, labels, crowd = sample.boxes[:0], sample.labels[:0], sample.crowd[:0]
    return replace(sample, boxes=boxes, labels=labels, crowd=crowd, masks=None, semantic=class_map)


def with_objects(sample: Sample, predicted: Objects) -> tuple[Sample, np.ndarray]:
    """The same image with the sure predictions in place of its objects, and their scores (M,)."""
    from pycocotools.mask import decode

    side = sample.image.shape[0]
    boxes = predicted.boxes.clip(0, side)
    sure = (predicted.scores >= LEAST_SCORE) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masks = None
    if predicted.outlines is not None:
        chosen = [decode(predicted.outlines[place]).astype(bool) for place in np.flatnonzero(sure)]
        masks = np.stack(chosen) if chosen else np.zeros((0, side, side), bool)
    boxes, labels, crowd = boxes[sure], predicted.labels[sure], predicted.crowd[sure]
    shown = replace(sample, boxes=boxes, labels=labels, crowd=crowd, masks=masks, semantic=None)
    return shown, predicted.scores[sure]
