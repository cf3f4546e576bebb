"""Checks of data sets (scripts/validate_data.py): unreadable and odd images, copies, leaks between splits, balance.

The result is an HTML page and a JSON file; `check_data` can also move files with errors into a quarantine. A package
`src/kit/*_checks` supports further kinds of data: it defines `find_checker(cfg)` and adds to `KINDS` what it finds.
"""

from src.kit.checks.checking import Checker, check, check_data, restore_data
from src.kit.checks.findings import KINDS, Entry, Facts, Finding, ImageFiles, Kind, Region, Source
from src.kit.checks.report import Result

__all__ = [
    "KINDS",
    "Checker",
    "Entry",
    "Facts",
    "Finding",
    "ImageFiles",
    "Kind",
    "Region",
    "Result",
    "Source",
    "check",
    "check_data",
    "restore_data",
]
