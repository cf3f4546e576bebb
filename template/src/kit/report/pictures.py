"""Pictures of an evaluation: the confusion matrix, sample predictions with the mistakes first, and training images."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.kit.report.plots import BLUE, FAINT, INK, VERMILLION, new_figure, save, shorten

COLUMNS = 8
Caption = tuple[str, str]  # (text, colour)


def draw_predictions(
    images: np.ndarray, true: Sequence[str], predicted: Sequence[str], confidence: np.ndarray, path: Path
) -> Path:
    """Draw uint8 images (N, H, W, 1 or 3) with the true class, the predicted one and its probability."""
    captions = []
    for expected, answer, probability in zip(true, predicted, confidence, strict=True):
        right = expected == answer
        verdict = f"{'✓' if right else '✗'} {shorten(answer, 12)} ({probability:.0%})"
        captions.append([(f"true: {shorten(expected, 13)}", INK), (verdict, BLUE if right else VERMILLION)])
    mistakes = sum(expected != answer for expected, answer in zip(true, predicted, strict=True))
    return draw_grid(images, captions, f"Sample predictions: {mistakes} wrong, {len(captions) - mistakes} right", path)


def draw_images(images: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Draw uint8 images (N, H, W, 1 or 3), each with the name of its class."""
    captions = [[(shorten(name, 16), FAINT)] for name in names]
    return draw_grid(images, captions, "Training images", path)


def draw_grid(images: np.ndarray, captions: Sequence[Sequence[Caption]], title: str, path: Path) -> Path:
    """Draw images (N, H, W, C) in rows of eight, lines of text under each; small ones keep their square pixels."""
    count, height, width = images.shape[:3]
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    tall = height / width
    cell = tall + 0.2 * len(captions[0]) + 0.14  # height of one cell; the unit is an image's width
    right = max(columns, 4) * 1.12 - 0.12
    figure = new_figure(1.2 * (right + 0.2), 1.2 * rows * cell + 0.45, layout=None)
    height_share = 1.2 * rows * cell / (1.2 * rows * cell + 0.45)
    axes = figure.add_axes((0.1 / (right + 0.2), 0, right / (right + 0.2), height_share))
    for index, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left, top = (index % columns) * 1.12, -(index // columns) * cell
        axes.imshow(
            image[..., 0] if image.shape[-1] == 1 else image,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(left, left + 1, top - tall, top),
            interpolation="nearest" if height < 100 else "antialiased",
        )
        for number, (text, colour) in enumerate(lines):
            axes.text(left, top - tall - 0.13 - 0.19 * number, text, color=colour, fontsize=7.5, va="center")
    axes.set_xlim(0, right)
    axes.set_ylim(-rows * cell, 0)
    axes.set_axis_off()
    axes.set_title(title)
    return save(figure, path, dpi=140)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draw a confusion matrix (K, K) of counts; rows are true classes, columns predictions.

    Colours show the share of the true class, on a square-root scale so that rare mistakes stay visible.
    """
    from matplotlib.colors import PowerNorm

    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(3.4 + 0.42 * count, 4.6), 15)
    figure = new_figure(side + 0.9, side)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    step = math.ceil(count / 100)
    size = 9 if count <= 30 else max(5.0, 9 - (count - 30) / 18)
    names = [shorten(name, 22) for name in classes[::step]]
    axes.set_xticks(range(0, count, step), names, rotation=0 if max(map(len, names)) <= 3 else 90, fontsize=size)
    axes.set_yticks(range(0, count, step), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= 20:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.35 else INK
            axes.text(column, row, f"{matrix[row, column]:d}", ha="center", va="center", color=colour, fontsize=8.5)
    axes.set_title("Confusion matrix")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(image, shrink=0.6, aspect=24, ticks=[0, 0.05, 0.2, 0.5, 1], format="{x:.0%}")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("share of the true class")
    return save(figure, path)
