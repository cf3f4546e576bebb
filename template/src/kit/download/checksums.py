"""Checksums of files, written "md5:<hex>" or "sha256:<hex>"."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from src.kit.config import UserError

CHUNK = 1 << 20
DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


def normalise(checksum: str) -> str:
    """The checksum in lower case.

    Raises:
        UserError: it doesn't name an algorithm, or has another number of digits than the algorithm gives.
    """
    algorithm, _, digits = checksum.lower().partition(":")
    if len(digits) != DIGITS.get(algorithm) or not re.fullmatch("[0-9a-f]+", digits):
        raise UserError(
            f"{checksum!r} is no checksum: write sha256: and 64 hexadecimal digits, or md5: and the publisher's 32."
        )
    return f"{algorithm}:{digits}"


def digest(path: Path, checksum: str, check: Callable[[], None] = lambda: None) -> str:
    """The file's checksum by the algorithm that `checksum` names; `check` is called often and may raise to give up."""
    algorithm = checksum.partition(":")[0]
    total = hashlib.new(algorithm, usedforsecurity=algorithm not in ("md5", "sha1"))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check()
            total.update(chunk)
    return f"{algorithm}:{total.hexdigest()}"
