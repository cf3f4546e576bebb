"""Build HTML; everything that comes from outside is escaped."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any


def escaped(value: Any) -> str:
    """Return a value as escaped text: floats with four digits, None and "" as a dash."""
    if isinstance(value, float):
        return f"{value:.4f}"
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
    return f'<div class="scroll"><table class="pairs">{"".join(rows)}</table></div>' if rows else ""


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys and lists into one line."""
    if isinstance(values, Mapping):
        parts = [flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(values, list) and not any(isinstance(value, Mapping | list) for value in values):
        return {prefix: " ".join(map(str, values))}
    return {prefix: values}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table with a column for each key; values in [0, 1] also get a bar, missing ones stay empty."""
    if not rows:
        return ""
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    kind = {key: ' class="number"' if key in numbers else "" for row in rows for key in row}
    head = "".join(f"<th{kind[key]}>{escaped(key)}</th>" for key in kind)
    body = "".join("<tr>" + "".join(cell(row.get(key, ""), kind[key]) for key in kind) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: Any, kind: str) -> str:
    """Return one cell of a table."""
    if isinstance(value, float) and 0 <= value <= 1:
        return f'<td class="number bar" style="--share:{value:.1%}">{value:.4f}</td>'
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
