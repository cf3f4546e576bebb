"""Write what a check found: a JSON file for programs, and an HTML page with thumbnails of the problems."""

import base64
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFile, ImageOps

from src.kit.checks.findings import KINDS, SEVERITIES, Facts, Finding, Region, Source
from src.kit.checks.images import FORMATS, MAX_BYTES
from src.kit.loading import MAX_PIXELS, PLAIN, Reading, flatten, is_deep_png, is_tiff, open_rgb
from src.kit.report import TEMPLATE, card, details, duration, escaped, section, table, to_colours
from src.kit.run import read_json, write_json
from src.kit.storage import replace_file

SHOWN = 12  # thumbnails of each kind
LISTED = 200  # lines of each kind; the JSON file has all of them
CLASSES = 200  # rows of the table of classes
QUARANTINE = " --quarantine moves the affected files away, --restore puts them back."
SIZE = 176  # pixels of a thumbnail's longer side
QUALITY = 72
FRAME = "#d55e00"
OUTSIDE = "#c9d1d9"  # the part of the canvas outside the image
STYLE = """
.kind h2 { display: flex; align-items: center; gap: 10px; flex-wrap: wrap; margin-bottom: 2px; }
.kind > p { margin: 0 0 14px; color: var(--soft); }
.pill { font-size: 12px; font-weight: 650; padding: 1px 9px; border-radius: 99px; white-space: nowrap; }
.pill.error { background: var(--warn-tint); color: var(--warn); }
.pill.warning { background: var(--tint); color: var(--accent); }
.pill.note { background: var(--page); color: var(--soft); }
.contents { margin: 0; padding: 0; list-style: none; columns: 2 340px; column-gap: 40px; }
.contents li {
  display: flex; justify-content: space-between; align-items: center; gap: 12px; padding: 5px 0;
  border-bottom: 1px solid var(--line); break-inside: avoid;
}
.contents a { color: var(--ink); text-decoration: none; }
.contents a:hover { color: var(--accent); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 20px; margin-top: 16px; }
.gallery.pairs { grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); }
.gallery figure { margin: 0; text-align: left; }
.gallery div {
  display: flex; gap: 6px; align-items: center; justify-content: center; height: 192px; padding: 8px;
  background: var(--page); border-radius: 8px;
}
.gallery img { max-height: 176px; border-radius: 4px; }
.gallery.pairs img { max-width: calc(50% - 3px); }
figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 7px; color: var(--soft); overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; display: block; }
figcaption i { font-style: normal; font-size: 11px; }
"""


@dataclass(frozen=True)
class Result:
    """What was checked and what was found."""

    name: str
    source: Source
    facts: Mapping[str, Facts]  # by path
    findings: list[Finding]  # errors first
    seconds: float
    movable: bool = False  # whether a quarantine can move the files

    def count(self, severity: str) -> int:
        """The number of findings of this severity."""
        return sum(finding.severity == severity for finding in self.findings)


def write_json_report(result: Result, path: Path) -> None:
    """Write all findings."""
    found = [{"severity": finding.severity, **finding._asdict()} for finding in result.findings]
    summary = {
        "name": result.name,
        "root": str(result.source.root.resolve()),
        result.source.items: len(result.source.entries),
        "seconds": round(result.seconds, 3),
        **{f"{severity}s": result.count(severity) for severity in SEVERITIES},
        "unit": result.source.unit,
        "counts": result.source.counts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**summary, "findings": found})


def own_folder(folder: Path, result: Result) -> Path:
    """The folder of a report, with a number if it already has that of another data set."""
    number, chosen, root = 1, folder, str(result.source.root.resolve())
    while (chosen / "report.json").is_file() and report_root(chosen / "report.json") not in (root, ""):
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen


def report_root(path: Path) -> str:
    """The data set's folder of an earlier report; "" if that is unreadable."""
    try:
        values: Any = read_json(path)
        return str(Path(values["root"]).resolve())
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_page(result: Result, path: Path) -> None:
    """Write the page atomically."""
    groups = [(kind, list(found)) for kind, found in groupby(result.findings, lambda finding: finding.kind)]
    total = sum(facts.size for facts in result.facts.values())
    cards = [card(f"{len(result.source.entries):,}", result.source.items)]
    cards += [card(f"{result.count(severity):,}", f"{severity}s") for severity in SEVERITIES]
    cards += [card(f"{total / 1e6:,.1f} MB", "of image files")] if total else []
    cards += [card(duration(result.seconds), "to check")]
    with lenient():
        kinds = [kind_section(kind, found, result.source) for kind, found in groups]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escaped(f"Data check: {result.name}"),
        subtitle=escaped(str(result.source.root)),
        cards="".join(cards),
        advice=verdict(result),
        sections="\n".join([f"<style>{STYLE}</style>", contents(groups), *kinds, *data_sections(result)]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path, wait=False) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")  # a file's name need not be UTF-8


def verdict(result: Result) -> str:
    """The headline: whether the data is fit for training."""
    errors, warnings = result.count("error"), result.count("warning")
    if errors:
        advice = QUARANTINE if result.movable else ""
        return f'<p class="advice"><b>{errors:,} error{"s" * (errors > 1)}:</b> fix them before training.{advice}</p>'
    rest = f"review the {warnings:,} warning{'s' * (warnings > 1)}." if warnings else "nothing suspicious found."
    return f'<p class="advice good"><b>No errors:</b> {rest}</p>'


def contents(groups: Sequence[tuple[str, list[Finding]]]) -> str:
    """The list of kinds found, with links."""
    rows = "".join(
        f'<li><a href="#{kind}">{escaped(KINDS[kind].title)}</a> {pill(kind, len(found))}</li>'
        for kind, found in groups
    )
    return section("Findings", f'<ul class="contents">{rows}</ul>' if rows else "")


def pill(kind: str, count: int) -> str:
    """A count in its severity's colour."""
    severity = KINDS[kind].severity
    return f'<span class="pill {severity}">{count:,} {severity}{"s" * (count != 1)}</span>'


def kind_section(kind: str, found: Sequence[Finding], source: Source) -> str:
    """All findings of one kind, the first ones with thumbnails."""
    figures = [figure for finding in found[:SHOWN] if (figure := draw_finding(finding, source))]
    listed = table([{"where": finding.path, "what": finding.sentence} for finding in found[:LISTED]])
    if len(found) > LISTED:
        listed += f"<p>{len(found) - LISTED:,} more are in the JSON file.</p>"
    if len(figures) == len(found):
        listed = ""
    pairs = " pairs" if any(finding.other for finding in found) else ""
    gallery = f'<div class="gallery{pairs}">{"".join(figures)}</div>{details(f"All {len(found):,}", listed)}'
    head = f"<h2>{escaped(KINDS[kind].title)} {pill(kind, len(found))}</h2><p>{escaped(KINDS[kind].advice)}</p>"
    return f'<section class="kind" id="{kind}">{head}{gallery if figures else listed}</section>'


def draw_finding(finding: Finding, source: Source) -> str:
    """A finding with its thumbnail, or both of a pair; "" if there is nothing to show."""
    shown = [(finding.path, finding.region), *([(finding.other, None)] if finding.other else [])]
    urls = [thumbnail(source.root / path, region, source.reading) for path, region in shown]
    images = "".join(f'<img alt="" src="{url}">' for url in urls if url)
    folder, slash, name = finding.path.rpartition("/")
    caption = f"<i>{escaped(folder + slash)}</i><b>{escaped(name)}</b>{escaped(finding.sentence)}"
    return f"<figure><div>{images}</div><figcaption>{caption}</figcaption></figure>" if images else ""


def data_sections(result: Result) -> list[str]:
    """Tables of splits, classes, formats and sizes."""
    splits = {split: counts for split, counts in result.source.counts.items() if counts}
    names = dict.fromkeys(name for counts in splits.values() for name in counts)
    rows: list[Mapping[str, Any]] = [
        {"class": name, **{split or "all": counts[name] for split, counts in splits.items()}} for name in names
    ]
    items, entries = result.source.items, Counter(entry.split or "all" for entry in result.source.entries)
    formats = Counter(f"{facts.format} {facts.mode}" for facts in result.facts.values() if facts.format)
    sizes = Counter(f"{facts.width} x {facts.height}" for facts in result.facts.values() if facts.width)
    return [
        section("Splits", table([{"split": split, items: count} for split, count in entries.items()])),
        section(f"Classes: number of {result.source.unit}", table(rows[:CLASSES])),
        section("Formats", table([{"format": name, "images": count} for name, count in formats.most_common(10)])),
        section("Sizes", table([{"width x height": name, "images": count} for name, count in sizes.most_common(10)])),
    ]


@contextmanager
def lenient() -> Iterator[None]:
    """Let Pillow show what is left of truncated images."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def thumbnail(path: Path, region: Region | None = None, reading: Reading = PLAIN) -> str:
    """The image as training reads it, as a data URL with `region` outlined; "" if it can't be shown.

    Call it within `lenient()`.
    """
    try:
        if not path.is_file() or os.path.getsize(path) > MAX_BYTES:
            return ""
        content = path.read_bytes()
        if is_tiff(content) or is_deep_png(content) or reading["bands"] is not None:
            image = Image.fromarray(np.ascontiguousarray(to_colours(open_rgb(content, reading))))
            picture = outline(image, image.size, region)
        else:
            picture = draw_file(content, region, reading)
    except Exception:  # a damaged file may have nothing to show, and its parser raises whatever it stumbles over
        return ""
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def draw_file(content: bytes, region: Region | None, reading: Reading) -> Image.Image:
    """An image of 8 bits with `region` outlined, or what is left of it."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        size = image.size
        image.draft("RGB", (2 * SIZE, 2 * SIZE))
        ImageOps.exif_transpose(image, in_place=True)
        size = size if (image.width < image.height) == (size[0] < size[1]) else size[::-1]
        return outline(flatten(image, reading["background"]), size, region)


def outline(image: Image.Image, size: tuple[int, int], region: Region | None) -> Image.Image:
    """Scale to `SIZE`, on a canvas that includes the region, whose coordinates refer to an image of `size`."""
    width, height = size
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if region is not None:  # at most the image's size beyond each side
        left, top = max(min(left, region[0]), -width), max(min(top, region[1]), -height)
        right, bottom = min(max(right, region[2]), 2 * width), min(max(bottom, region[3]), 2 * height)
    scale = SIZE / max(right - left, bottom - top)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    filter = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR
    canvas = Image.new("RGB", (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))), OUTSIDE)
    canvas.paste(image.resize(shown, filter), (round(-left * scale), round(-top * scale)))
    if region is not None:
        xs, ys = (
            sorted(min(max((region[i] - start) * scale, 0.0), side - 1.0) for i in (axis, axis + 2))
            for axis, start, side in ((0, left, canvas.width), (1, top, canvas.height))
        )
        ImageDraw.Draw(canvas).rectangle((xs[0], ys[0], xs[1], ys[1]), outline=FRAME, width=2)
    return canvas
