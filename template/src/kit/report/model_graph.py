"""Draw and tabulate a network's layers, from rows that either framework can collect.

A row is `{"name": "layer1.0.conv1", "type": "Conv2d", "output_shape": (1, 64, 8, 8), "parameters": 36864}`, one for
each leaf layer in the order of the forward pass. A layer that is called twice may have two rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from src.kit.report.figures import BLUE, FAINT, GREEN, INK, ORANGE, PINK, new_figure, save, shorten

Layer = Mapping[str, Any]
MAX_BLOCKS = 24  # readable in one picture
COLOURS = (("attention", PINK), ("conv", BLUE), ("linear", ORANGE), ("norm", GREEN))


def model_table(layers: Sequence[Layer]) -> str:
    """Return the layers as plain text, with the total of parameters and their size in MiB as float32."""
    header = ("layer", "type", "output shape", "parameters")
    rows = [(row["name"], row["type"], shape(row), f"{row['parameters']:,}") for row in layers]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    total = count_parameters(layers)
    return (
        "\n".join(line.rstrip() for line in lines)
        + f"\n\n{total:,} parameters, {total * 4 / 2**20:.3g} MiB as float32\n"
    )


def count_parameters(layers: Sequence[Layer]) -> int:
    """Sum the parameters, counting a layer that is called twice once."""
    return sum({row["name"]: row["parameters"] for row in layers}.values())


def group(layers: Sequence[Layer]) -> list[Layer]:
    """Merge neighbours whose names begin alike until the blocks fit one picture.

    Up to 24 layers stay single. More are merged by the first two parts of the name ("layer1.0"), or by the first
    ("layer1").
    """
    blocks: list[Layer] = list(layers)
    for depth in (2, 1):
        if len(blocks) <= MAX_BLOCKS:
            break
        prefixes = [".".join(row["name"].split(".")[:depth]) for row in layers]
        parts = groupby(zip(prefixes, layers, strict=True), key=itemgetter(0))
        blocks = [merge(name, [row for _, row in part]) for name, part in parts]
    return blocks


def merge(name: str, rows: Sequence[Layer]) -> Layer:
    """Merge rows into one: their most frequent types, the last output shape and all parameters."""
    kinds = Counter(row["type"] for row in rows)
    text = ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.most_common(3))
    more = ", …" if len(kinds) > 3 else ""
    return {
        "name": name,
        "type": text + more,
        "output_shape": rows[-1]["output_shape"],
        "parameters": count_parameters(rows),
    }


def shape(row: Layer) -> str:
    """Format an output shape without the batch: "64 x 8 x 8"."""
    return " x ".join(str(size) for size in list(row["output_shape"])[1:])


def draw_model_graph(layers: Sequence[Layer], path: Path) -> Path:
    """Draw the network from top to bottom: a box per block with its output shape and share of the parameters."""
    from matplotlib.patches import FancyBboxPatch

    blocks = group(layers)
    total = max(count_parameters(layers), 1)
    pitch = 1.45  # from box to box, in box heights
    figure = new_figure(8.2, 0.9 + 0.5 * len(blocks))
    axes = figure.add_subplot()
    for index, row in enumerate(blocks):
        y = -index * pitch
        colour = next((colour for word, colour in COLOURS if word in row["type"].lower()), FAINT)
        box = FancyBboxPatch(
            (0, y), 10, 1, "round,pad=0,rounding_size=0.18", facecolor=colour, edgecolor="none", alpha=0.13
        )
        axes.add_patch(box)
        axes.add_patch(FancyBboxPatch((0, y + 0.1), 0.1, 0.8, "round,pad=0,rounding_size=0.05", color=colour))
        axes.text(0.35, y + 0.48, shorten(row["name"], 24), color=INK, weight="bold", va="center", fontsize=9)
        axes.text(3.55, y + 0.48, shorten(row["type"], 46), color=INK, va="center", fontsize=8)
        axes.text(9.8, y + 0.48, shape(row), color=FAINT, va="center", ha="right", fontsize=8)
        if row["parameters"]:
            axes.barh(y + 0.5, 2.2 * row["parameters"] / total, 0.5, left=10.35, color=colour, alpha=0.85)
            end = 10.45 + 2.2 * row["parameters"] / total
            axes.text(end, y + 0.48, f"{row['parameters']:,}", color=FAINT, va="center", fontsize=8)
        if index:
            axes.annotate(
                "", (5, y + 1.02), (5, y + pitch), arrowprops={"arrowstyle": "-|>", "color": FAINT, "lw": 0.8}
            )
    axes.set_xlim(0, 14)
    axes.set_ylim(-(len(blocks) - 1) * pitch - 0.1, 1.1)
    axes.set_axis_off()
    axes.set_title(f"Network: {total:,} parameters, {total * 4 / 2**20:.3g} MiB")
    return save(figure, path)
