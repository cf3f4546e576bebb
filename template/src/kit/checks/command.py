"""What scripts/validate_data.py does once it has read its options."""

import argparse
import sys
from itertools import groupby
from pathlib import Path

from omegaconf import DictConfig

from src.kit.checks.issues import KINDS, SEVERITIES
from src.kit.checks.quarantine import quarantine, restore
from src.kit.checks.report import write_json_report, write_page
from src.kit.checks.run import Result, check, movable
from src.kit.config import UserError


def check_and_report(cfg: DictConfig, options: argparse.Namespace) -> int:
    """Check `cfg.data`, write both reports, move bad files if `--quarantine` is set; the number of errors."""
    if options.quarantine and not movable(cfg.data.name):
        raise UserError(f"--quarantine moves image files, and {cfg.data.name} has none.")
    result = check(cfg, options.workers)
    page = options.report or Path(cfg.output_dir) / f"data-report-{cfg.data.name}" / "report.html"
    values = options.json or page.with_suffix(".json")
    write_page(result, page)
    write_json_report(result, values)
    print_summary(result)
    print(f"The report is {page}, for programs {values}.")
    if options.quarantine:
        target = quarantine(result.source, result.findings)
        print(f"Files with errors are in {target}." if target else "There is no file to quarantine.")
    return result.count("error")


def print_summary(result: Result) -> None:
    """Print one line for each kind of finding, with the first one."""
    count = len(result.source.entries)
    totals = {severity: result.count(severity) for severity in SEVERITIES}
    counts = ", ".join(f"{total:,} {severity}{'s' * (total != 1)}" for severity, total in totals.items())
    speed = f"{count / max(result.seconds, 1e-9):,.0f} {result.source.items}/s"
    print(f"{count:,} {result.source.items} of {result.name} in {result.seconds:.1f} s ({speed}): {counts}")
    for kind, group in groupby(result.findings, lambda finding: finding.kind):
        found = list(group)
        first = printable(f"{found[0].path}: {found[0].sentence}")
        print(f"  {KINDS[kind].severity:7s} {len(found):7,}  {KINDS[kind].title}\n{'':19}such as {first}")


def printable(text: str) -> str:
    """The text without what a file's name might do to a terminal, and without letters that this one does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.encode(encoding, "replace").decode(encoding)


def put_back(cfg: DictConfig) -> None:
    """Undo every quarantine of the data set's folder."""
    root = Path(cfg.data.get("root") or ".").expanduser()
    count = restore(root)
    print(f"{count:,} files were put back." if count else f"{root} has no quarantine.")
