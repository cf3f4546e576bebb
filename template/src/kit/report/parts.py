"""Parts of the report's page: tables, cards, pictures, and the network's layers as a table and a drawing."""

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from src.kit.report.figures import BLUE, FAINT, GREEN, INK, ORANGE, PINK, add_axes, new_figure, save_figure, shorten

Layer = Mapping[str, Any]
MAX_BLOCKS = 24  # readable in one picture
NO_SHARE = re.compile(r"loss|rmse|mae|error|brier|lost|^std$|lr$|_s$")  # names of figures that are no share of 1
COLOURS = (("attention", PINK), ("conv", BLUE), ("linear", ORANGE), ("norm", GREEN))


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to another page; `href` is relative to this one."""

    href: str
    text: str


def escaped(value: Any) -> str:
    """Return a value as escaped text: floats with four decimals, tiny ones with three digits; None and "" as a dash."""
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"
    return "-" if value is None or value == "" else escape(str(value))


def section(title: str, *parts: str) -> str:
    """Return a titled section, or "" if all its parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>" if body else ""


def card(value: str, label: str) -> str:
    """Return a card for one number at the top of the page."""
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def details(title: str, body: str) -> str:
    """Return a part that opens on a click, or "" if it is empty."""
    return f'<details class="fold"><summary>{escape(title)}</summary>{body}</details>' if body else ""


def picture(path: Path, kind: str) -> str:
    """Embed a PNG file, or return "" if it doesn't exist.

    Args:
        kind: "chart" is inverted in dark mode, "photo" never.
    """
    if not path.is_file():
        return ""
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big") * 2 // 3  # from the PNG header; drawn for high-density screens
    data = base64.b64encode(content).decode("ascii")
    name = escape(path.stem.replace("-", " "), quote=True)
    return f'<figure><img class="{kind}" alt="{name}" width="{width}" src="data:image/png;base64,{data}"></figure>'


def side_by_side(paths: Sequence[Path], kind: str) -> str:
    """Embed the PNG files that exist, side by side if the page is wide enough."""
    found = "".join(picture(path, kind) for path in paths)
    return f'<div class="pictures">{found}</div>' if found else ""


def pairs(values: Mapping[str, Any]) -> str:
    """Return nested keys and values as a table with dotted keys."""
    rows = [f"<tr><td>{escape(key)}</td><td>{escaped(value)}</td></tr>" for key, value in flatten(values).items()]
    return f'<div class="scroll whole"><table class="pairs">{"".join(rows)}</table></div>' if rows else ""


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys and lists into one line."""
    if isinstance(values, Mapping):
        parts = [flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(values, list) and not any(isinstance(value, Mapping | list) for value in values):
        return {prefix: " ".join(map(str, values))}
    return {prefix: values}


def table(rows: Sequence[Mapping[str, Any]], wide: bool = False) -> str:
    """Return rows as a table with a column for each key; shares also get a bar, missing values stay empty.

    Args:
        wide: keep each cell on one line, and scroll, instead of breaking words.
    """
    if not rows:
        return ""
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    kind = {key: ' class="number"' if key in numbers else "" for row in rows for key in row}
    head = "".join(f"<th{kind[key]}>{escaped(key)}</th>" for key in kind)
    body = "".join("<tr>" + "".join(cell(row.get(key, ""), kind[key], key) for key in kind) + "</tr>" for row in rows)
    kinds = "scroll wide" if wide else "scroll"
    return f'<div class="{kinds}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: Any, kind: str, name: str) -> str:
    """Return one cell of the column `name`."""
    if isinstance(value, Link):
        return f'<td><a href="{escape(value.href)}">{escape(value.text)}</a></td>'
    if isinstance(value, float) and 0 <= value <= 1 and not NO_SHARE.search(name):
        return f'<td class="number bar" style="--share:{value:.1%}">{escaped(value)}</td>'
    return f"<td{kind}>{escaped(value)}</td>"


def duration(seconds: float) -> str:
    """Format seconds: "8.3 s", "4 min 05 s", "3 h 12 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def preformatted(path: Path) -> str:
    """Return a text file's content preformatted, or "" if it doesn't exist."""
    return f"<pre>{escaped(path.read_text(encoding='utf-8').strip())}</pre>" if path.is_file() else ""


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
    figure = new_figure(8.2, 0.9 + 0.5 * len(blocks), None)
    axes = add_axes(figure, 0.15, 0.1, 7.9, 0.3 + 0.5 * len(blocks))
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
    return save_figure(figure, path)
