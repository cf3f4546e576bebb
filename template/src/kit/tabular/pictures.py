"""Plots of a table's rows and of predicted numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.kit.report import BLUE, FAINT, new_figure, save, shorten

MOST = 5000  # points drawn
COLUMNS = 40  # drawn


def draw_rows(values: np.ndarray, columns: Sequence[str], targets: Sequence[str], path: Path) -> Path:
    """Draw encoded rows (N, F) with their targets: blue is below the column's mean, red above.

    Returns:
        `path`, of the PNG file.
    """
    values, columns = values[:, :COLUMNS], columns[:COLUMNS]
    figure = new_figure(3.0 + 0.28 * len(columns), 2.2 + 0.22 * len(values))
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), [shorten(name, 22) for name in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(values)), [shorten(name, 16) for name in targets], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("Training rows")
    figure.colorbar(image, shrink=0.6, label="standard deviations, or a code")
    return save(figure, path)


def draw_numbers(predicted: np.ndarray, true: np.ndarray, name: str, path: Path) -> Path:
    """Draw predicted against true numbers (N,), a random 5,000 of them, with the diagonal.

    Returns:
        `path`, of the PNG file.
    """
    chosen = np.random.default_rng(0).permutation(len(true))[:MOST]
    figure = new_figure(5.2, 5.0)
    axes = figure.add_subplot()
    ends = [min(predicted.min(), true.min()), max(predicted.max(), true.max())]
    axes.plot(ends, ends, color=FAINT, linewidth=1)
    axes.scatter(true[chosen], predicted[chosen], s=10, color=BLUE, alpha=0.5, linewidths=0)
    axes.set_title(f"Predictions of {name}")
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    return save(figure, path)
