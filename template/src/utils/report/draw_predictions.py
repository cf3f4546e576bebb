"""Pictures of what was predicted in images, beside the truth."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.datasets.augment.scenes import build
from src.datasets.scenes.samples import Sample, Scenes
from src.tasks.objects import Objects
from src.utils.report.draw_scenes import draw_scenes

SHOWN = 8
LEAST_SCORE = 0.25  # less sure predictions would hide the image
TITLE = "true (left) and predicted (right)"


def draw_objects(kept: Sequence[tuple[Objects, Objects]], dataset: Scenes, cfg: DictConfig, path: Path) -> Path:
    """Draw the first images of a data set, each twice: with its true and with its predicted objects."""
    drawn = []
    for index, (predicted, _) in enumerate(kept[:SHOWN]):
        sample = read(dataset, index, cfg)
        drawn += [sample, with_objects(sample, predicted)]
    return draw_scenes(drawn, dataset.classes, TITLE, path)


def draw_class_maps(
    examples: Sequence[tuple[int, np.ndarray]], dataset: Scenes, classes: Sequence[str], cfg: DictConfig, path: Path
) -> Path:
    """Draw the images of these numbers, each twice: with its true and with its predicted class map (H, W)."""
    from src.tasks.segmentation import class_map

    drawn = []
    for index, predicted in examples[:SHOWN]:
        sample = read(dataset, index, cfg)
        empty = replace(sample, boxes=sample.boxes[:0], labels=sample.labels[:0], crowd=sample.crowd[:0], masks=None)
        drawn += [replace(empty, semantic=class_map(sample)), replace(empty, semantic=predicted)]
    return draw_scenes(drawn, classes, TITLE, path)


def draw_truth(dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
    """Draw the first images of these numbers with their objects."""
    samples = [read(dataset, int(index), cfg) for index in chosen[:SHOWN]]
    return draw_scenes(samples, dataset.classes, f"{cfg.data.name}: training images", path)


def read(dataset: Scenes, index: int, cfg: DictConfig) -> Sample:
    """One image as the network saw it."""
    return build("none", cfg.data.image_size, dataset.flippable)(dataset.read(index), np.random.default_rng(0))


def with_objects(sample: Sample, predicted: Objects) -> Sample:
    """The same image with the sure predictions in place of its objects."""
    from pycocotools.mask import decode

    side = sample.image.shape[0]
    boxes = predicted.boxes.clip(0, side)
    sure = (predicted.scores >= LEAST_SCORE) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masks = None
    if predicted.outlines is not None:
        chosen = [decode(predicted.outlines[place]).astype(bool) for place in np.flatnonzero(sure)]
        masks = np.stack(chosen) if chosen else np.zeros((0, side, side), bool)
    return replace(
        sample,
        boxes=boxes[sure],
        labels=predicted.labels[sure],
        crowd=predicted.crowd[sure],
        masks=masks,
        semantic=None,
    )
