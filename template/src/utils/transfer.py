"""Move bytes: copy a local file, or download over HTTP with retries and resumption. Standard library only."""

import errno
import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from src.utils.errors import UserError

ATTEMPTS = 4  # in a row without a new byte
BACKOFF_S = 1.0  # before the second attempt; doubles for each one after it
TIMEOUT_S = 30.0
CHUNK = 1 << 18


def transfer(source: str, part: Path) -> None:
    """Copy a file, or download a URL from where `part` ends; tries again while that may help."""
    if not source.startswith(("http://", "https://")):
        shutil.copyfile(source, part)
        return
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return receive(source, part, before)
        except HTTPError as error:
            if error.code == 416 and before:  # nothing left to send: `part` is whole, or its checksum will tell
                return
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(
                    f"{source} answered {error.code} {error.reason}: set DATASET_MIRROR to a folder or URL that has it."
                ) from error
            reason = f"{error.code} {error.reason}"
        except (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        gained = part.exists() and part.stat().st_size > before
        failures = 0 if gained else failures + 1
        if failures == ATTEMPTS:
            raise UserError(
                f"Cannot download {source} ({reason}): check the network or set DATASET_MIRROR, then run again."
            )
        time.sleep(BACKOFF_S * 2 ** max(failures - 1, 0))


def receive(url: str, part: Path, start: int) -> None:
    """Append the bytes from `start` on, or begin anew where the server sends the whole file."""
    request = Request(url, headers={"User-Agent": "dataset-download"} | ({"Range": f"bytes={start}-"} if start else {}))
    with urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise ConnectionError("the server sent another range than asked for")
        start = start if response.status == 206 else 0
        expected = response.length  # None where the server does not say
        if expected and expected > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        with part.open("ab" if start else "wb") as file, progress(url, start, expected) as advance:
            received = 0
            while chunk := response.read1(CHUNK):
                received += file.write(chunk)
                advance(len(chunk))
        if expected is not None and received < expected:
            raise ConnectionError(f"the connection broke after {start + received} of {start + expected} bytes")


@contextmanager
def progress(url: str, start: int, expected: int | None) -> Iterator[Callable[[int], None]]:
    """A bar with speed and time left on a terminal, one plain line otherwise."""
    total = None if expected is None else start + expected
    if not sys.stderr.isatty():
        size = "" if total is None else f" ({total / 1e6:.1f} MB)"
        print(f"Downloading {url}{size}{' from where it stopped' if start else ''}", flush=True)
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=total, completed=start)
        yield lambda count: bar.advance(task, count)
