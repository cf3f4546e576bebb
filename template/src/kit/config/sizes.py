"""Sizes as people write them: "256MB"."""

import re

from src.kit.config.errors import UserError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?B)?", re.IGNORECASE)


def parse_size(text: str | int, key: str) -> int:
    """Bytes, from a number of them or a number with KB, MB, GB or TB (powers of 1000).

    Raises:
        UserError: names `key`, if the text is no size above 0.
    """
    match = SIZE.fullmatch(str(text).strip())
    size = round(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise UserError(f"{key} must be a size such as 256MB or 20GB, not {text!r}.")
    return size
