"""The curves of a run and the style of every picture, in colours that colour-blind people can tell apart.

matplotlib is imported inside the functions, because importing it costs up to a second.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/)
BLUE, VERMILLION, GREEN, ORANGE, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
INK, FAINT, GRID = "#24292f", "#6e7781", "#e3e7ec"
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
)
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
    """Return an empty figure of that size in inches, in the project's style; `save` writes it."""
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans", *(font for font in CJK_FONTS if font in installed)]
    style: Any = STYLE | {"font.family": families}
    matplotlib.rcParams.update(style)
    return Figure(figsize=(width, height), layout=layout)


def save(figure: "Figure", path: Path, dpi: int = 130) -> Path:
    """Write a figure as PNG, whole or not at all, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class name in a script that no font here can write
        figure.savefig(partial, format="png", dpi=dpi)
    os.replace(partial, path)
    return path


def draw_curves(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write `loss.png`, `metrics.png` and `learning-rate.png`, each one where the rows have such a column.

    Args:
        rows: one mapping an epoch, as in metrics.jsonl: epoch, lr, train/loss, val/loss, val/<metric>.
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
    """Return the epochs and values of one column, without the rows where it is missing or not finite."""
    found = [(row.get("epoch", index), row.get(key)) for index, row in enumerate(rows, 1)]
    kept = [(x, y) for x, y in found if y is not None and math.isfinite(y)]
    return [x for x, _ in kept], [y for _, y in kept]


def draw_lines(lines: Mapping[str, tuple[list[float], list[float]]], title: str, path: Path) -> Path:
    """Draw named (x, y) lines over the epochs; training is blue, validation vermillion wherever they meet."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.2, 3.9)
    axes = figure.add_subplot()
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
    if len(epochs := {epoch for x, _ in lines.values() for epoch in x}) == 1:  # else the axis reads 0.945 to 1.050
        (only,) = epochs
        axes.set_xlim(only - 0.5, only + 0.5)
        axes.set_xticks([only])
    axes.grid(axis="y")
    axes.legend(handlelength=1.4)  # where it hides least; it tells the last values
    return save(figure, path)


def shorten(text: str, length: int) -> str:
    """Cut the middle of a name that is longer than `length`: its end often tells it from the others."""
    tail = length // 2 - 1
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"
