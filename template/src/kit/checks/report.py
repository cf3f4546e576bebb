"""Write what a check found: a JSON file for programs, and a page with pictures of what is wrong."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Any

from src.kit.checks.issues import KINDS, SEVERITIES, Finding
from src.kit.checks.run import Result, movable
from src.kit.checks.thumbnails import lenient, thumbnail
from src.kit.report import TEMPLATE, card, duration, fold, section, table, text
from src.kit.run import write_json

SHOWN = 12  # pictures of each kind
LISTED = 200  # lines of each kind; the JSON file has all of them
CLASSES = 200  # rows of the table of classes
QUARANTINE = " --quarantine moves the files that they concern away, and --restore puts them back."
STYLE = Path(__file__).with_name("report_style.css")


def write_json_report(result: Result, path: Path) -> None:
    """Write everything that was found."""
    found = [{"severity": finding.severity, **finding._asdict()} for finding in result.findings]
    summary = {
        "name": result.name,
        "root": str(result.source.root),
        result.source.items: len(result.source.entries),
        "seconds": round(result.seconds, 3),
        **{f"{severity}s": result.count(severity) for severity in SEVERITIES},
        "unit": result.source.unit,
        "counts": result.source.counts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**summary, "findings": found})


def write_page(result: Result, path: Path) -> None:
    """Write the page, whole or not at all."""
    groups = [(kind, list(found)) for kind, found in groupby(result.findings, lambda finding: finding.kind)]
    total = sum(facts.size for facts in result.facts.values())
    cards = [card(f"{len(result.source.entries):,}", result.source.items)]
    cards += [card(f"{result.count(severity):,}", f"{severity}s") for severity in SEVERITIES]
    cards += [card(f"{total / 1e6:,.1f} MB", "of image files")] if total else []
    cards += [card(duration(result.seconds), "to check")]
    with lenient():
        kinds = [kind_section(kind, found, result.source.root) for kind, found in groups]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=text(f"Data check: {result.name}"),
        subtitle=text(str(result.source.root)),
        cards="".join(cards),
        advice=verdict(result),
        sections="\n".join(
            [f"<style>{STYLE.read_text(encoding='utf-8')}</style>", contents(groups), *kinds, *data_sections(result)]
        ),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8", errors="replace")  # a file's name need not be UTF-8
    partial.replace(path)


def verdict(result: Result) -> str:
    """Return whether the data can be trained on, and what to do."""
    errors, warnings = result.count("error"), result.count("warning")
    if errors:
        advice = QUARANTINE if movable(result.name) else ""
        return f'<p class="advice"><b>{errors:,} error{"s" * (errors > 1)}:</b> mend them before training.{advice}</p>'
    rest = f"look at the {warnings:,} warning{'s' * (warnings > 1)}." if warnings else "nothing suspicious was found."
    return f'<p class="advice good"><b>No errors:</b> {rest}</p>'


def contents(groups: Sequence[tuple[str, list[Finding]]]) -> str:
    """Return the list of all kinds that were found, with links."""
    rows = "".join(
        f'<li><a href="#{kind}">{text(KINDS[kind].title)}</a> {pill(kind, len(found))}</li>' for kind, found in groups
    )
    return section("Findings", f'<ul class="contents">{rows}</ul>' if rows else "")


def pill(kind: str, count: int) -> str:
    """Return a number with its severity's colour."""
    severity = KINDS[kind].severity
    return f'<span class="pill {severity}">{count:,} {severity}{"s" * (count != 1)}</span>'


def kind_section(kind: str, found: Sequence[Finding], root: Path) -> str:
    """Return all findings of one kind, the first ones with pictures."""
    figures = [figure for finding in found[:SHOWN] if (figure := draw(finding, root))]
    listed = table([{"where": finding.path, "what": finding.sentence} for finding in found[:LISTED]])
    if len(found) > LISTED:
        listed += f"<p>{len(found) - LISTED:,} more are in the JSON file.</p>"
    if len(figures) == len(found):
        listed = ""
    pairs = " pairs" if any(finding.other for finding in found) else ""
    gallery = f'<div class="gallery{pairs}">{"".join(figures)}</div>{fold(f"All {len(found):,}", listed)}'
    head = f"<h2>{text(KINDS[kind].title)} {pill(kind, len(found))}</h2><p>{text(KINDS[kind].advice)}</p>"
    return f'<section class="kind" id="{kind}">{head}{gallery if figures else listed}</section>'


def draw(finding: Finding, root: Path) -> str:
    """Return a finding with its picture, both for a pair; nothing where there is no picture."""
    urls = [thumbnail(root / finding.path, finding.box), thumbnail(root / finding.other) if finding.other else ""]
    images = "".join(f'<img alt="" src="{url}">' for url in urls if url)
    folder, slash, name = finding.path.rpartition("/")
    caption = f"<i>{text(folder + slash)}</i><b>{text(name)}</b>{text(finding.sentence)}"
    return f"<figure><div>{images}</div><figcaption>{caption}</figcaption></figure>" if images else ""


def data_sections(result: Result) -> list[str]:
    """Return what the data set consists of."""
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
        section(f"Classes: {result.source.unit} in each", table(rows[:CLASSES])),
        section("Formats", table([{"format": name, "images": count} for name, count in formats.most_common(10)])),
        section("Sizes", table([{"width x height": name, "images": count} for name, count in sizes.most_common(10)])),
    ]
