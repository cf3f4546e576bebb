"""Fetch one file or several: resumed, from mirrors in turn, verified always, put in place only when they are right."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from src.kit.config import UserError
from src.kit.download.checksums import normalise
from src.kit.download.delivery import Delivery
from src.kit.download.display import Display, Meter
from src.kit.download.segments import CONNECTIONS

REFRESH_S = 0.1


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch; see `fetch`."""

    urls: str | Sequence[str]
    target: Path
    checksum: str
    size: int | None = None


def fetch(urls: str | Sequence[str], target: Path, checksum: str, size: int | None = None, quiet: bool = False) -> Path:
    """Download to `target`, unpacked where only the address ends in .gz; a file that is already there is only verified.

    Args:
        urls: the address, or several of the same file, tried in turn. DATASET_MIRROR takes their place.
        checksum: "sha256:<hex>" or "md5:<hex>" of `target`'s content.
        size: bytes of `target`'s content, if they are known: a server that announces another size isn't listened to.
        quiet: show nothing.

    Raises:
        UserError: no connection, an HTTP error, another content than the checksum's, or a disk that cannot be written.
            `target` is then as it was before. What was received is kept and resumed, unless it was wrong.
    """
    return fetch_all([RemoteFile(urls, target, checksum, size)], quiet)[0]


def fetch_all(files: Iterable[RemoteFile], quiet: bool = False) -> list[Path]:
    """Fetch several files at once, over eight connections in all; returns their targets in order.

    Raises:
        UserError: as `fetch`, after the other files are there.
    """
    wanted = list(files)
    stop = threading.Event()
    display = Display([Meter(file.target.name) for file in wanted], quiet)
    deliveries = [
        Delivery(file.urls, file.target, normalise(file.checksum), file.size, meter, display.say, stop)
        for file, meter in zip(wanted, display.meters, strict=True)
    ]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        futures = [pool.submit(delivery.run) for delivery in deliveries]
        try:
            while wait(futures, REFRESH_S).not_done:  # with a time limit, so that Ctrl-C is heard on Windows too
                display.draw()
        except BaseException:
            stop.set()
            raise
        finally:
            display.close()
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        more = f" {len(errors) - 1} more files failed as well." if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}") if isinstance(errors[0], UserError) else errors[0]
    return [file.target for file in wanted]
