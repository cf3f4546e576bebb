"""Figures of a run, in colours that colour-blind people can tell apart: curves, confusion matrix, predictions, folds.

matplotlib is imported inside the functions because importing it takes up to a second."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from omegaconf import DictConfig

from src.kit.config import title_of
from src.kit.loading import Split, build_image_loader
from src.kit.report.fonts import families, readable
from src.kit.storage import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LAYERS, MOST_STEPS = 60, 300  # in one picture
LAYER_MAPS = (  # key of layers.jsonl, title, whether its logarithm is drawn
    ("grad_norm", "log10 of the gradient's norm", True),
    ("change", "log10 of the weights' relative change", True),
    ("activation_zeros", "share of outputs that are zero", False),
)
COLUMNS = 8  # images in a row
ZLIB_RLE = 3  # looks for runs only: as small for drawings, in half the time
Caption = tuple[str, str]  # (text, colour)
# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/)
BLUE, VERMILLION, GREEN, ORANGE, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PINK, SKY)
INK, FAINT, GRID = "#24292f", "#6e7781", "#e3e7ec"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5"
    "axes.edgecolor": "#b6bec8",
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
}


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> "Figure":
    """Return an empty figure in the project's style, sized in inches. `save_figure` writes it."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = STYLE | {"font.family": families}
    matplotlib.rcParams.update(style)
    return Figure(figsize=(width, height), layout=layout)


def add_axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place in inches: measuring all texts for a layout takes as long as drawing them."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def text_width(figure: "Figure", texts: Sequence[str], size: float) -> float:
    """Width in inches of the longest of some texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties

    renderer, font = FigureCanvasAgg(figure).get_renderer(), FontProperties(size=size)
    return max(renderer.get_text_width_height_descent(text, font, False)[0] for text in texts) / figure.dpi


def save_figure(figure: "Figure", path: Path, dpi: int = 130) -> Path:
    """Write a figure as PNG atomically and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path, wait=False) as partial:
        figure.savefig(partial, format="png", dpi=dpi, pil_kwargs={"compress_type": ZLIB_RLE})
    return path


def draw_curves(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `loss.png`, `metrics.png` and `learning-rate.png`, each only if the rows have such columns.

    Args:
        rows: one mapping per epoch, as in metrics.jsonl: epoch, lr, train/loss, val/loss, val/<metric>.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    losses = [key for key in columns if key.endswith("/loss")]
    metrics = [key for key in columns if "/" in key and key not in losses]
    charts = (("loss", "Loss", losses), ("metrics", "Metrics", metrics), ("learning-rate", "Learning rate", ["lr"]))
    written = []
    for name, title, keys in charts:
        lines = {key: points(rows, key) for key in keys}
        lines = {key: line for key, line in lines.items() if line[0]}
        if lines:
            written.append(draw_lines(lines, title, folder / f"{name}.png"))
    return written


def points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Return the epochs and values of one column, skipping missing and non-finite values."""
    found = [(row.get("epoch", index), row.get(key)) for index, row in enumerate(rows, 1)]
    kept = [(x, y) for x, y in found if y is not None and math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def draw_lines(lines: Mapping[str, tuple[list[float], list[float]]], title: str, path: Path) -> Path:
    """Draw named (x, y) lines over the epochs; losses are blue for training and vermillion for validation."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.2, 3.9, None)
    axes = add_axes(figure, 0.75, 0.55, 4.25, 2.9)
    spare = iter([GREEN, ORANGE, PINK, SKY] * len(lines))
    for number, (name, (x, y)) in enumerate(lines.items()):
        first = number == 0 or name.endswith("/loss")
        colour = (VERMILLION if name.startswith("val/") else BLUE) if first else next(spare)
        marker = "o" if len(x) <= 30 else ""
        axes.plot(
            x, y, color=colour, linewidth=2, marker=marker, markersize=4, label=f"{name}  {y[-1]:.4g}", clip_on=False
        )
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(epochs := {epoch for x, _ in lines.values() for epoch in x}) == 1:  # or the axis reads 0.945 to 1.050
        (only,) = epochs
        axes.set_xlim(only - 0.5, only + 0.5)
        axes.set_xticks([only])
    axes.grid(axis="y")
    axes.legend(handlelength=1.4)  # placed where it hides least; shows the last values
    return save_figure(figure, path)


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a name longer than `length`, because its end often distinguishes it."""
    text, tail = readable(text), length // 2 - 1
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def draw_predictions(
    images: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: np.ndarray,
    path: Path,
    mistakes: int | None = None,
) -> Path:
    """Draw uint8 images (N, H, W, C), each with its true class, its predicted class and the probability.

    Args:
        mistakes: how many there are in the whole split, if more than are drawn.
    """
    captions = []
    for expected, answer, probability in zip(true, predicted, confidence, strict=True):
        right = expected == answer
        verdict = f"{'✓' if right else '✗'} {shorten(answer, 12)} ({probability:.0%})"
        captions.append([(f"true: {shorten(expected, 13)}", INK), (verdict, BLUE if right else VERMILLION)])
    drawn = sum(expected != answer for expected, answer in zip(true, predicted, strict=True))
    total = drawn if mistakes is None else mistakes
    mistaken = f"the surest {drawn} of {total} mistakes"
    title = f"Sample predictions: {mistaken}, and the least sure {len(captions) - drawn} right answers"
    return draw_grid(images, captions, title, path)


def draw_images(images: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Draw uint8 images (N, H, W, C), each with its class name."""
    captions = [[(shorten(name, 16), FAINT)] for name in names]
    return draw_grid(images, captions, "Training images", path)


def to_colours(image: np.ndarray) -> np.ndarray:
    """What can be shown of an image (H, W, C): (H, W, 3), the first three bands, or the first one as grey."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def draw_grid(images: np.ndarray, captions: Sequence[Sequence[Caption]], title: str, path: Path) -> Path:
    """Draw uint8 images (N, H, W, C) in rows of eight with captions below; small ones keep their sharp pixels."""
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
            to_colours(image),
            extent=(left, left + 1, top - tall, top),
            interpolation="nearest" if height < 100 else "antialiased",
        )
        for number, (text, colour) in enumerate(lines):
            axes.text(left, top - tall - 0.13 - 0.19 * number, text, color=colour, fontsize=7.5, va="center")
    axes.set_xlim(0, right)
    axes.set_ylim(-rows * cell, 0)
    axes.set_axis_off()
    axes.set_title(title)
    return save_figure(figure, path, dpi=140)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draw a confusion matrix of counts, int (K, K): rows are true classes, columns predictions.

    Colours show the share of the true class on a square-root scale, so that rare mistakes stay visible.
    """
    from matplotlib.colors import PowerNorm

    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(3.4 + 0.42 * count, 4.6), 15)
    figure = new_figure(side + 0.9, side, None)
    step = math.ceil(count / 100)
    size = 9 if count <= 30 else max(5.0, 9 - (count - 30) / 18)
    names = [shorten(name, 22) for name in classes[::step]]
    upright = max(map(len, names)) <= 3
    wide = text_width(figure, names, size)
    left, bottom = 0.45 + wide, 0.5 + (size / 72 if upright else wide)
    square = min(side - 0.3 - left, side - 0.5 - bottom)
    axes = add_axes(figure, left, side - 0.5 - square, square, square)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    axes.set_xticks(range(0, count, step), names, rotation=0 if upright else 90, fontsize=size)
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
    place = add_axes(figure, left + square + 0.2, side - 0.5 - 0.8 * square, 0.025 * square, 0.6 * square)
    bar = figure.colorbar(image, place, ticks=[0, 0.05, 0.2, 0.5, 1], format="{x:.0%}")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("share of the true class")
    return save_figure(figure, path)


def draw_layers(rows: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draw what a training has recorded of its layers, over its steps; None if there are fewer than two records.

    Args:
        rows: of layers.jsonl, see `src/kit/training/inspection.py`.
    """
    if len(rows) < 2:
        return None
    rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, min(len(rows), MOST_STEPS))]
    names = list(rows[-1]["layers"])
    names = [names[int(place)] for place in np.linspace(0, len(names) - 1, min(len(names), MOST_LAYERS))]
    figure = new_figure(11.5, 1.3 + 0.19 * len(names), None)
    left = 0.3 + text_width(figure, shown := [shorten(name, 26) for name in names], 8)
    width = (11.1 - left) / 3
    for number, (key, title, logarithm) in enumerate(LAYER_MAPS):
        cells = [[row["layers"].get(name, {}).get(key) for row in rows] for name in names]
        values = np.array(cells, dtype=np.float64)
        if logarithm:
            values = np.log10(np.where(values > 0, values, np.nan))
        axes = add_axes(figure, left + number * width, 0.55, width - 0.75, 0.19 * len(names))
        ends = (rows[0]["step"], rows[-1]["step"])
        image = axes.imshow(
            np.ma.masked_invalid(values), cmap="viridis", aspect="auto", extent=(*ends, len(names) - 0.5, -0.5)
        )
        axes.set_yticks(range(len(names)) if number == 0 else [], shown if number == 0 else [], fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        figure.colorbar(image, add_axes(figure, left + (number + 1) * width - 0.7, 0.55, 0.1, 0.19 * len(names)))
    return save_figure(figure, path)


def draw_folds(result: Mapping[str, Any], path: Path) -> Path:
    """Draw every score: a dot per fold, the mean and one standard deviation to both sides."""
    names = list(result["scores"]["test"])
    figure = new_figure(7.0, 0.5 * len(names) + 1.3)
    axes = figure.add_subplot()
    for split, colour, shift in (("test", BLUE, -0.14), ("val", VERMILLION, 0.14)):
        rows = [result["scores"][split][name] for name in names]
        places = [place + shift for place in range(len(names))]
        means, stds = [row["mean"] for row in rows], [row["std"] for row in rows]
        axes.errorbar(means, places, xerr=stds, fmt="|", color=colour, capsize=4, linewidth=2, label=split)
        for place, row in zip(places, rows, strict=True):
            axes.plot(row["values"], [place] * len(row["values"]), "o", color=colour, markersize=4, alpha=0.5)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.set_title(f"Scores of {result['folds']} folds")
    axes.grid(axis="x")
    axes.legend()
    return save_figure(figure, path)


def draw_image_batch(cfg: DictConfig, dataset: Split, split: str, path: Path, count: int) -> Path:
    """Draw up to `count` images of the first batch of `split` with their class names, as a PNG."""
    images, targets = next(iter(build_image_loader(cfg, dataset, split)))
    mean, std = (np.array(cfg.data[key], np.float32)[:, None, None] for key in ("mean", "std"))
    pixels = np.rint((images[:count] * std + mean).clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    captions = [[(name_of(target, dataset.classes), FAINT)] for target in targets[:count]]
    return draw_grid(pixels, captions, describe_batch(cfg, split), path)


def describe_batch(cfg: DictConfig, split: str) -> str:
    """A title: the split and everything that changes training images."""
    title = f"{readable(title_of(cfg.data))}: {split} split"
    if split != "train":
        return title
    keys = ("mixup_alpha", "cutmix_alpha", "mosaic", "mixup", "copy_paste")
    mixed = [f"{key}={cfg.data[key]}" for key in keys if cfg.data.get(key)]
    sizes = [f"sizes={list(cfg.data.sizes)}"] if cfg.data.sizes else []
    return ", ".join([title, f"augment={cfg.data.augment}", *mixed, *sizes])


def name_of(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """The name of a class, or the two likeliest classes of a mixed image: "60% cat, 40% dog"."""
    if target.ndim == 0:
        return shorten(classes[int(target)], 16)
    best = [number for number in np.argsort(-target)[:2] if target[number] > 0]
    return ", ".join(f"{target[number]:.0%} {shorten(classes[number], 8)}" for number in best)
