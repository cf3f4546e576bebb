"""Try again while that may help, with growing pauses."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from src.kit.download.connection import Broken, SourceFailed

ATTEMPTS = 4  # in a row without `PROGRESS` new bytes
PROGRESS = 1 << 16
BACKOFF_S = 1.0  # before the second attempt; doubles for each one after it

T = TypeVar("T")


def retry(source: str, attempt: Callable[[], T], position: Callable[[], int], check: Callable[[], None]) -> T:
    """The result of `attempt`, which is made again when the connection breaks.

    Args:
        position: how many bytes are there; an attempt that brought many of them isn't counted as a failure.
        check: called often; raises when the download is no longer wanted.

    Raises:
        SourceFailed: `ATTEMPTS` failures in a row.
    """
    failures, before = 0, position()
    while True:
        try:
            return attempt()
        except Broken as error:
            broken = error
        failures = 1 if position() - before >= PROGRESS else failures + 1
        before = position()
        if failures == ATTEMPTS:
            raise SourceFailed(f"{source} ({broken})") from broken
        pause(max(broken.wait_s, backoff(failures)), check)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures, a little at random so that segments don't come back all at once."""
    return BACKOFF_S * 2 ** (failures - 1) * random.uniform(0.8, 1.2)


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Sleep, but wake up soon when the download is no longer wanted."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))
