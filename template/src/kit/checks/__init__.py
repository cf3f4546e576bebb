"""Checks of data sets, as a page and JSON; quarantine."""

from src.kit.checks.command import check_and_report, put_back
from src.kit.checks.files import Entry, Source, walk
from src.kit.checks.images import Facts
from src.kit.checks.issues import KINDS, Box, Finding, Kind

__all__ = ["KINDS", "Box", "Entry", "Facts", "Finding", "Kind", "Source", "check_and_report", "put_back", "walk"]
