"""Pictures of a search: the best score so far, what matters, two keys against each other, all keys at once."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.kit.report import BLUE, FAINT, VERMILLION, new_figure, save_figure, shorten
from src.kit.search.space import Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP = "viridis_r"  # the best trials are dark, and colour-blind people can tell them apart
TICKS = 5
MOST_AXES = 8


@dataclass(frozen=True)
class Result:
    """A trial with a score; `values` are those of the study, by key."""

    number: int
    values: dict[str, Any]
    score: float


def draw_search(
    dimensions: Sequence[Dimension],
    results: Sequence[Result],
    importances: dict[str, float],
    monitor: str,
    mode: str,
    folder: Path,
) -> list[Path]:
    """Write the pictures that so many trials allow, and return their paths."""
    ordered = sorted(dimensions, key=lambda part: -importances.get(part.key, 0.0))
    written = [draw_history(results, monitor, mode, folder / "history.png")] if results else []
    if importances:
        written.append(draw_importances(importances, folder / "importance.png"))
    if len(results) > 1 and len(dimensions) > 1:
        written.append(draw_contour(ordered[0], ordered[1], results, monitor, mode, folder / "contour.png"))
    if len(results) > 1:
        written.append(draw_parallel(ordered[:MOST_AXES], results, monitor, mode, folder / "parallel-coordinates.png"))
    return written


def draw_history(results: Sequence[Result], monitor: str, mode: str, path: Path) -> Path:
    """Draw each trial's score, and the best one so far as a line."""
    from matplotlib.ticker import MaxNLocator

    numbers, scores = [row.number for row in results], [row.score for row in results]
    best = (np.maximum if mode == "max" else np.minimum).accumulate(scores)
    figure = new_figure(5.2, 3.9)
    axes = figure.add_subplot()
    axes.plot(numbers, scores, "o", color=BLUE, markersize=5, alpha=0.7, label="trial")
    axes.step(numbers, best, where="post", color=VERMILLION, linewidth=2, label=f"best  {best[-1]:.4g}")
    axes.set_title("History")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(monitor)
    axes.grid(axis="y")
    axes.legend()
    return save_figure(figure, path)


def draw_front(
    points: dict[int, list[float]], front: Sequence[int], objectives: Sequence[tuple[str, str]], path: Path
) -> Path:
    """Draw trials (number -> scores) by their first two objectives, those of the Pareto front with their numbers."""
    figure = new_figure(5.2, 3.9)
    axes = figure.add_subplot()
    others = [values for number, values in points.items() if number not in front]
    if others:
        axes.plot([row[1] for row in others], [row[0] for row in others], "o", color=BLUE, markersize=5, alpha=0.5)
    best = sorted((points[number][1], points[number][0], number) for number in front)
    line = "o-" if len(objectives) == 2 else "o"
    axes.plot([x for x, _, _ in best], [y for _, y, _ in best], line, color=VERMILLION, linewidth=1.2, markersize=7)
    for x, y, number in best:
        axes.annotate(str(number), (x, y), xytext=(6, 6), textcoords="offset points", color=FAINT, fontsize=8)
    (up, up_mode), (across, across_mode) = objectives[:2]
    axes.set_title(f"Pareto front: {len(front)} of {len(points)} trials")
    axes.set_xlabel(f"{across} ({across_mode})")
    axes.set_ylabel(f"{up} ({up_mode})")
    axes.grid()
    return save_figure(figure, path)


def draw_importances(importances: dict[str, float], path: Path) -> Path:
    """Draw the share of the scores' differences that each key explains."""
    rows = sorted(importances.items(), key=lambda row: row[1])
    figure = new_figure(5.2, max(2.4, 0.45 * len(rows) + 1.4))
    axes = figure.add_subplot()
    axes.barh([shorten(name, 28) for name, _ in rows], [value for _, value in rows], color=BLUE, height=0.6)
    for place, (_, value) in enumerate(rows):
        axes.text(value, place, f" {value:.0%}", va="center", color=FAINT)
    axes.set_xlim(0, max(0.05, *(value for _, value in rows)) * 1.15)
    axes.set_title("Importance")
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return save_figure(figure, path)


def place(part: Dimension, value: Any) -> float:
    """Where a value is between a dimension's ends, in [0, 1]."""
    if part.choices:
        return part.choices.index(str(value)) / max(1, len(part.choices) - 1)
    low, high, at = (math.log(x) if part.log else x for x in (part.low, part.high, float(value)))
    return (at - low) / (high - low)


def ticks(part: Dimension) -> tuple[list[float], list[str]]:
    """Places and labels of a dimension's axis; a logarithmic one has whole powers of ten between its ends."""
    values: list[Any]
    if part.choices:
        values = list(part.choices)
    elif part.log:
        powers = [10.0**n for n in range(math.ceil(math.log10(part.low)), math.floor(math.log10(part.high)) + 1)]
        inner = [value for value in powers if 0.12 < place(part, value) < 0.88]
        values = [part.low, *inner[:: max(1, len(inner) // TICKS)], part.high]
    else:
        step = max(1, (int(part.high - part.low)) // (TICKS - 1)) if part.whole else (part.high - part.low) / 4
        values = [part.low + step * n for n in range(TICKS) if part.low + step * n <= part.high]
    return [place(part, value) for value in values], [
        shorten(value, 14) if isinstance(value, str) else f"{value:g}" for value in values
    ]


def draw_contour(x: Dimension, y: Dimension, results: Sequence[Result], monitor: str, mode: str, path: Path) -> Path:
    """Draw the scores over two keys: coloured areas between the trials, and a dot for each of them."""
    across, up = ([place(part, row.values[part.key]) for row in results] for part in (x, y))
    scores = [row.score for row in results]
    colours = MAP if mode == "max" else MAP.removesuffix("_r")
    figure = new_figure(5.2, 4.2)
    axes = figure.add_subplot()
    with suppress(ValueError, RuntimeError):  # fewer than three places, or all on one line
        if len(set(zip(across, up, strict=True))) > 3 and max(scores) > min(scores):
            axes.tricontourf(across, up, scores, levels=12, cmap=colours, alpha=0.55)
    dots = axes.scatter(across, up, c=scores, cmap=colours, edgecolors="white", linewidths=0.8, s=46, clip_on=False)
    best = (max if mode == "max" else min)(range(len(scores)), key=scores.__getitem__)
    axes.plot(across[best], up[best], "o", markersize=12, markerfacecolor="none", color=VERMILLION, markeredgewidth=2)
    axes.set_xticks(*ticks(x))
    axes.set_yticks(*ticks(y))
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel(shorten(x.key, 40))
    axes.set_ylabel(shorten(y.key, 40))
    axes.set_title("The two most important keys")
    figure.colorbar(dots, shrink=0.8, label=monitor).outline.set_visible(False)  # type: ignore[operator]
    return save_figure(figure, path)


def draw_parallel(parts: Sequence[Dimension], results: Sequence[Result], monitor: str, mode: str, path: Path) -> Path:
    """Draw a line for each trial through its values on one axis a key; the best are drawn last."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = new_figure(max(5.2, 1.9 * len(parts) + 2.2), 4.2)
    axes = figure.add_subplot()
    scores = [row.score for row in results]
    scale = ScalarMappable(Normalize(min(scores), max(scores) + 1e-12), colormaps[MAP if mode == "max" else MAP[:-2]])
    for row in sorted(results, key=lambda row: row.score, reverse=mode == "min"):
        heights = [place(part, row.values[part.key]) for part in parts]
        heights = heights if len(heights) > 1 else [*heights, *heights]
        axes.plot(
            range(len(heights)), heights, color=tuple(scale.to_rgba(np.array(row.score))), linewidth=1.6, alpha=0.8
        )
    for number, part in enumerate(parts):
        draw_axis(axes, part, number)
    axes.set_xticks(range(len(parts)), [shorten(part.key, 24) for part in parts])
    axes.set_yticks([])
    axes.set_xlim(-0.15, max(1, len(parts) - 1) + 0.45)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("All trials with a score")
    figure.colorbar(scale, ax=axes, shrink=0.8, label=monitor).outline.set_visible(False)  # type: ignore[operator]
    return save_figure(figure, path)


def draw_axis(axes: "Axes", part: Dimension, number: int) -> None:
    """Draw one key's vertical axis with its values."""
    axes.axvline(number, color=FAINT, linewidth=1)
    for height, label in zip(*ticks(part), strict=True):
        axes.plot([number, number + 0.03], [height, height], color=FAINT, linewidth=1)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
        axes.text(number + 0.05, height, label, color=FAINT, fontsize=8, va="center", bbox=box)
