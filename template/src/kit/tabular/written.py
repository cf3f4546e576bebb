"""Single numbers, dates and times as people write them."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

MARKS = {".": "point", ",": "comma"}  # decimal mark -> value of data.columns.decimal
SIGNS = r"US\$|R\$|C\$|A\$|[$€£¥₹₩₽₺₴₫฿₪¢]|zł|Kč|Ft|kr\.?|Rs\.?|元|円|원"
CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|BRL|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RUB|TRY|KRW|MXN|ZAR|HKD|SGD|ILS|THB|UAH"
)
UNIT = rf"(?:{SIGNS}|{CODES})"
MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
NAME = rf"(?P<name>(?:{'|'.join(MONTHS)})[a-z]*)\.?"
YEAR, SHORT = r"(?P<year>\d{4})", r"(?P<year>\d{4}|\d{2})"
MONTH, DAY = r"(?P<month>\d{1,2})", r"(?P<day>\d{1,2})"
TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?\s*(?P<zone>z|utc|gmt|[+-]\d{2}:?\d{2})?"
)
LAYOUTS = {
    "year-month-day": rf"{YEAR}(?P<mark>[-/. ]){MONTH}(?P=mark){DAY}",
    "day/month": rf"{DAY}(?P<mark>[-/. ]){MONTH}(?P=mark){SHORT}",
    "month/day": rf"{MONTH}(?P<mark>[-/ ]){DAY}(?P=mark){SHORT}",
    "day name year": rf"{DAY}(?:st|nd|rd|th|\.)?[-/ ]*{NAME},?[-/ ]*{SHORT}",
    "name day year": rf"{NAME}[-/ ]*{DAY}(?:st|nd|rd|th)?,?[-/ ]+{YEAR}",
    "year name day": rf"{YEAR}[-/ ]*{NAME}[-/ ]*{DAY}",
    "year-month": rf"{YEAR}[-/]{MONTH}",
    "month/year": rf"{MONTH}[-/]{YEAR}",
    "name year": rf"{NAME},?[-/ ]*{YEAR}",
    "年月日": rf"{YEAR}\s*年\s*{MONTH}\s*月\s*(?:{DAY}\s*日)?",
    "yyyymmdd": r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
}


@cache
def number_pattern(mark: str) -> re.Pattern[str]:
    """Matches a number with this decimal mark, with thousands separators, a unit and a sign on either side."""
    groups = re.escape({".": ",", ",": "."}[mark]) + "'’ \u00a0\u202f\u2009"
    whole = rf"(?P<whole>[1-9]\d{{0,2}}(?P<group>[{groups}])(?:\d{{2,3}}(?P=group))*\d{{3}}|\d+)?"
    number = rf"{whole}(?:{re.escape(mark)}(?P<decimals>\d*))?(?P<power>[eE][+-]?\d+)?"
    return re.compile(
        rf"(?P<open>\()?\s*(?P<sign>[-+])?\s*(?P<before>{UNIT})?\s*(?P<inner>[-+])?\s*{number}"
        rf"\s*(?P<after>{UNIT}|%)?\s*(?P<last>-)?\s*(?P<close>\))?"
    )


def read_number(text: str, mark: str = ".") -> tuple[float, str] | None:
    """The number that a text is, and its unit ("" without one): `("$ 1,234.5") -> (1234.5, "$")`; None if it is none.

    Percentages are read as they are written: 12.5 % is 12.5. Brackets mean a negative number, as in book-keeping.
    """
    found = number_pattern(mark).fullmatch(text.replace("\u2212", "-").strip())
    if found is None or not (found["whole"] or found["decimals"]) or bool(found["open"]) != bool(found["close"]):
        return None
    minus = sum(found[name] == "-" for name in ("sign", "inner", "last")) + bool(found["open"])
    if minus > 1 or (found["before"] and found["after"]):
        return None
    whole = re.sub(r"\D", "", found["whole"] or "") or "0"
    value = float(f"{whole}.{found['decimals'] or '0'}{found['power'] or ''}")
    return (-value if minus else value), (found["before"] or found["after"] or "")


@cache
def date_pattern(style: str) -> re.Pattern[str]:
    """Matches a date of this layout, with a weekday before and a time after it."""
    weekday = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
    return re.compile(rf"{weekday}{LAYOUTS[style]}(?:(?:t|,?\s+){TIME})?", re.I)


def read_date(text: str, style: str) -> datetime | None:
    """The moment that a text means, in UTC if it has a time zone; None if it has another layout or does not exist."""
    found = date_pattern(style).fullmatch(text.strip())
    if found is None:
        return None
    values = found.groupdict()
    year = int(values["year"])
    if len(values["year"]) == 2:
        year += 1900 if year >= 69 else 2000  # as POSIX does
    month = MONTHS[values["name"][:3].lower()] if values.get("name") else int(values["month"] or 1)
    try:
        return datetime(year, month, int(values.get("day") or 1)) + read_time(values)
    except (ValueError, OverflowError):
        return None


def read_time(values: Mapping[str, Any]) -> timedelta:
    """Time since midnight UTC, from the groups of `TIME`.

    Raises:
        ValueError: an hour or minute that does not exist.
    """
    hour, minute, second = (int(values[name] or 0) for name in ("hour", "minute", "second"))
    if half := (values["half"] or "").lower()[:1]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + 12 * (half == "p")
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(hour)
    zone = re.sub(r"[^\d+-]", "", values["zone"] or "")
    offset = timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:])) if zone else timedelta(0)
    microseconds = int((values["fraction"] or "")[:6].ljust(6, "0"))
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=microseconds) - offset


def time_of_day(text: str) -> float | None:
    """Fraction of a day in [0, 1) that a time such as "3:30 pm" is; None for any other text."""
    found = re.fullmatch(TIME, text.strip(), re.I)
    try:
        return read_time(found.groupdict()) / timedelta(days=1) if found else None
    except ValueError:
        return None
