"""Pictures of annotated images, and of predictions next to the truth: boxes with class names, outlines, class maps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import title_of
from src.kit.inference import Size, size_of
from src.kit.report import FAINT, INK, new_figure, readable, save_figure, shorten, to_colours
from src.kit.scenes.augmentation import build_augmentation, place_on_canvas
from src.kit.scenes.class_maps import IGNORE
from src.kit.scenes.loader import evaluated_canvas
from src.kit.scenes.samples import Sample, Scenes
from src.kit.scenes.scores import SHOWN_SCORE, Objects

COLUMNS = 4
CELL = 3.4  # inches
GAP = 0.06
TITLE = 0.5
SHOWN = 8  # images of a picture
NAME = 10  # points of names: 9 pixels of a picture of four columns that a page shows 900 pixels wide
LETTER, LINE = 0.027, 0.057  # width and height of a name, as shares of its cell


def draw_objects(
    kept: Sequence[tuple[Objects, Objects]], dataset: Scenes, cfg: DictConfig, path: Path, least: float | None = None
) -> Path:
    """Draw the first images of a data set, each with its true objects and those predicted with at least this score."""
    least = SHOWN_SCORE if least is None else least  # less certain predictions would hide the image
    drawn: list[Sample] = []
    scores: list[np.ndarray | None] = []
    for index, (predicted, _) in enumerate(kept[:SHOWN]):
        sample = read_sample(dataset, index, evaluated_canvas(cfg, dataset, index))
        truth = boxes_only(sample) if predicted.outlines is None else sample
        shown, certain = with_objects(truth, predicted, least)
        drawn += [truth, shown]
        scores += [None, certain]
    title = f"true (left) and predicted with a score of {least:.0%} or more (right)"
    return draw_scenes(drawn, dataset.classes, title, path, scores)


def draw_class_maps(
    examples: Sequence[tuple[int, np.ndarray]],
    dataset: Scenes,
    cfg: DictConfig,
    path: Path,
    class_map: Callable[[Sample], np.ndarray],
) -> Path:
    """Draw images by their numbers, each with its true class map, made by `class_map`, and its predicted one (H, W)."""
    drawn = []
    for index, predicted in examples[:SHOWN]:
        sample = read_sample(dataset, index, evaluated_canvas(cfg, dataset, index))
        drawn += [with_class_map(sample, shown, dataset) for shown in (class_map(sample), predicted)]
    return draw_scenes(drawn, dataset.classes, "true (left) and predicted (right)", path)


def draw_truth(
    dataset: Scenes, chosen: np.ndarray, cfg: DictConfig, path: Path, show: Callable[[Sample], Sample]
) -> Path:
    """Draw images by their numbers, with the annotations that `show` leaves."""
    canvas = cfg.data.image_size, cfg.data.image_size
    samples = [show(read_sample(dataset, int(index), canvas)) for index in chosen[:SHOWN]]
    return draw_scenes(samples, dataset.classes, f"{readable(title_of(cfg.data))}: training images", path)


def read_sample(dataset: Scenes, index: int, canvas: Size) -> Sample:
    """Read one image as the network saw it in a batch of this height and width."""
    return build_augmentation("none")(dataset.read(index), np.random.default_rng(0), canvas)


def boxes_only(sample: Sample) -> Sample:
    """The sample without outlines and class map."""
    return replace(sample, masks=None, semantic=None)


def with_class_map(sample: Sample, class_map: np.ndarray, dataset: Scenes) -> Sample:
    """The sample with only this class map, whose background isn't painted if it is no class of the data set."""
    if dataset.has_background:
        background = (class_map == 0) | (class_map == IGNORE)
        class_map = np.where(background, IGNORE, class_map - 1).astype(np.uint8)
    boxes, labels, crowd = sample.boxes[:0], sample.labels[:0], sample.crowd[:0]
    return replace(sample, boxes=boxes, labels=labels, crowd=crowd, masks=None, semantic=class_map)


def with_objects(sample: Sample, predicted: Objects, least: float) -> tuple[Sample, np.ndarray]:
    """The sample with predictions of at least the score `least` in place of its objects, and their scores (M,)."""
    from pycocotools.mask import decode

    height, width = size_of(sample.image)
    boxes = predicted.boxes.clip(0, np.array([width, height] * 2, np.float32))
    certain = (predicted.scores >= least) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masks = None
    if predicted.outlines is not None:
        chosen = [decode(predicted.outlines[row]).astype(bool) for row in np.flatnonzero(certain)]
        masks = np.stack(chosen) if chosen else np.zeros((0, height, width), bool)
    boxes, labels, crowd = boxes[certain], predicted.labels[certain], predicted.crowd[certain]
    shown = replace(sample, boxes=boxes, labels=labels, crowd=crowd, masks=masks, semantic=None)
    return shown, predicted.scores[certain]


def draw_scenes(
    samples: Sequence[Sample],
    classes: Sequence[str],
    title: str,
    path: Path,
    scores: Sequence[np.ndarray | None] | None = None,
) -> Path:
    """Draw samples in rows of four, each object in the colour of its class, crowd regions dashed.

    `scores`, 0..1 (M,) of each sample's objects, follow their names.
    """
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    width, height = columns * CELL, rows * CELL + TITLE
    figure = new_figure(width, height, layout=None)
    figure.text(GAP / width, 1 - TITLE / 2 / height, title, va="center", fontsize=13, fontweight="bold", color=INK)
    for number, sample in enumerate(samples):
        left, top = number % columns * CELL + GAP, TITLE + number // columns * CELL
        side = CELL - 2 * GAP
        axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
        draw_scene(axes, in_square(sample), classes, scores[number] if scores else None)
    return save_figure(figure, path, dpi=130)


def in_square(sample: Sample) -> Sample:
    """The sample with grey around it where it is not square."""
    height, width = size_of(sample.image)
    side = max(height, width)
    corner = (side - width) // 2, (side - height) // 2
    return sample if height == width else place_on_canvas(sample, (side, side), (width, height), corner)


def draw_scene(axes: Any, sample: Sample, classes: Sequence[str], scores: np.ndarray | None = None) -> None:
    """Fill the axes with one sample."""
    side = sample.image.shape[0]
    axes.imshow(
        paint_regions(sample), interpolation="antialiased" if side > 200 else "nearest", extent=(0, side, side, 0)
    )
    axes.set(xlim=(0, side), ylim=(side, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    # large objects first, so that small ones and their names stay on top
    sizes = (sample.boxes[:, 2] - sample.boxes[:, 0]) * (sample.boxes[:, 3] - sample.boxes[:, 1])
    for row in np.argsort(-sizes):
        score = "" if scores is None else f" {scores[row]:.0%}"
        draw_object(axes, sample, int(row), classes, score)
    if sample.semantic is not None:
        name_regions(axes, sample.semantic, classes)
    elif not len(sample.labels):
        axes.text(side * 0.02, side * 0.03, "no objects", color="white", backgroundcolor=FAINT, fontsize=NAME, va="top")


def draw_object(axes: Any, sample: Sample, row: int, classes: Sequence[str], score: str) -> None:
    """Draw one box with its class name on the upper edge, or inside if there is no room above."""
    side = sample.image.shape[0]
    left, top, right, bottom = sample.boxes[row].tolist()
    colour = class_colour(int(sample.labels[row]))
    style = "--" if sample.crowd[row] else "-"
    corners = ([left, right, right, left, left], [top, top, bottom, bottom, top])
    axes.plot(*corners, color="white", linewidth=2.4, alpha=0.55, solid_joinstyle="miter")  # visible on any background
    axes.plot(*corners, color=colour, linewidth=1.4, linestyle=style, solid_joinstyle="miter")
    if max(right - left, bottom - top) < side * LINE:
        return  # a name would hide more than the object itself
    name = shorten(classes[sample.labels[row]], 16) + (" (crowd)" if sample.crowd[row] else score)
    above = top > side * LINE
    x, y = max(min(left, side * (0.99 - LETTER * len(name))), side * 0.006), top + side * (-0.004 if above else 0.012)
    write_name(axes, x, y, name, colour, va="bottom" if above else "top")


def name_regions(axes: Any, semantic: np.ndarray, classes: Sequence[str]) -> None:
    """Write each class's name on the pixel of it that is nearest to their centre, unless the region is small."""
    for number in np.unique(semantic[semantic != IGNORE]):
        places = np.argwhere(semantic == number)
        if len(places) > semantic.size / 300:
            y, x = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            name, colour = shorten(classes[number], 16), class_colour(int(number))
            edge = LETTER * semantic.shape[1] * len(name) / 2  # names of regions at the border stay whole
            x = np.clip(x, edge, max(edge, semantic.shape[1] - edge))
            write_name(axes, x, y, name, colour, edge=ink_on(colour), ha="center", va="center")


def write_name(
    axes: Any, x: float, y: float, name: str, colour: tuple[float, float, float], edge: str = "none", **keys: str
) -> None:
    """Write a name on a background of this colour; `edge` sets it off from a region of the same."""
    box = {"facecolor": colour, "edgecolor": edge, "linewidth": 0.8, "pad": 1.5}
    axes.text(x, y, name, color=ink_on(colour), fontsize=NAME, bbox=box, clip_on=True, **keys)


def paint_regions(sample: Sample) -> np.ndarray:
    """Overlay the class map and the outlines on the image: uint8 (H, W, 3)."""
    painted = to_colours(sample.image).astype(np.float32)
    if sample.semantic is not None:
        for number in np.unique(sample.semantic[sample.semantic != IGNORE]):
            blend_colour(painted, sample.semantic == number, class_colour(int(number)), 0.5)
    if sample.masks is not None:
        for row in np.argsort(-sample.masks.sum(axis=(1, 2))):
            blend_colour(painted, sample.masks[row], class_colour(int(sample.labels[row])), 0.45)
    return painted.astype(np.uint8)


def blend_colour(painted: np.ndarray, mask: np.ndarray, colour: tuple[float, ...], share: float) -> None:
    """Blend a colour into the pixels of a mask, more strongly at its edge."""
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    tint = 255 * np.array(colour, np.float32)
    painted[mask] += share * (tint - painted[mask])
    edge = mask & ~inner
    painted[edge] += 0.7 * (tint - painted[edge])


def class_colour(number: int) -> tuple[float, float, float]:
    """A colour per class: hues a golden angle apart, so that neighbours differ, in three tones."""
    from matplotlib.colors import hsv_to_rgb

    hue = (0.58 + number * (math.sqrt(5) - 1) / 2) % 1
    saturation, value = ((0.85, 0.95), (0.65, 0.8), (0.95, 0.7))[number % 3]
    red, green, blue = hsv_to_rgb((hue, saturation, value))
    return float(red), float(green), float(blue)


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever is easier to read on the colour (by its relative luminance)."""
    luminance = 0.2126 * colour[0] ** 2.2 + 0.7152 * colour[1] ** 2.2 + 0.0722 * colour[2] ** 2.2
    return "black" if luminance > 0.2 else "white"
