"""Fetch one file or several: mirrors in turn, resumed, always verified, moved to the target only when complete."""

import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from src.kit.config import UserError
from src.kit.download.connection import NoRoom, SourceFailed
from src.kit.download.files import DAMAGE, digest, gunzip, locked, parse_checksum, work_path
from src.kit.download.transfer import CONNECTIONS, Cancelled, Journal, Meter, Transfer, discard
from src.kit.errors import URL, way_out

REFRESH_S = 0.1  # between two updates of the display
LINE_S = 10.0  # between two lines about one file, where there is no terminal
ROOM = "free some space or set data.root (of weights: TORCH_HOME) to a writable folder"
MAX_RATIO = 200  # of unpacked to packed size, where the size is unknown; image data reaches at most a tenth of it


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch; see `fetch`."""

    urls: str | Sequence[str]
    target: Path
    checksum: str
    size: int | None = None


def fetch(urls: str | Sequence[str], target: Path, checksum: str, size: int | None = None, quiet: bool = False) -> Path:
    """Download to `target`, unpacked if only the URL ends in .gz. A file that exists is only verified.

    Args:
        urls: the URL, or several of the same file, tried in turn. DATASET_MIRROR replaces them.
        checksum: "sha256:<hex>" or "md5:<hex>" of `target`'s content.
        size: bytes of `target`'s content, if known; a server that announces another size is refused.
        quiet: print nothing.

    Raises:
        UserError: no connection, an HTTP error, wrong content, or a disk that can't be written. `target` is then
            unchanged. Received bytes stay and are resumed, unless they were wrong.
    """
    return fetch_all([RemoteFile(urls, target, checksum, size)], quiet)[0]


def fetch_all(files: Iterable[RemoteFile], quiet: bool = False) -> list[Path]:
    """Fetch several files at once, over eight connections in total; return their targets in order.

    Raises:
        UserError: as `fetch`, once the other files are complete.
    """
    wanted = list(files)
    stop = threading.Event()
    display = Display([Meter(file.target.name) for file in wanted], quiet)
    downloads = [
        FileDownload(file.urls, file.target, parse_checksum(file.checksum), file.size, meter, display.say, stop)
        for file, meter in zip(wanted, display.meters, strict=True)
    ]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        futures = [pool.submit(download.run) for download in downloads]
        try:
            while wait(futures, REFRESH_S).not_done:  # with a timeout, so that Ctrl-C works on Windows too
                display.draw()
        except BaseException:
            stop.set()
            raise
        finally:
            display.close()
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        others = len(errors) - 1
        more = f" {others} more {'file' if others == 1 else 'files'} failed as well." if others else ""
        raise UserError(f"{errors[0]}{more}") if isinstance(errors[0], UserError) else errors[0]
    return [file.target for file in wanted]


def sources_of(urls: str | Sequence[str]) -> list[str]:
    """Return the URLs to try in turn; with DATASET_MIRROR only the file's URL or path in the mirror."""
    addresses = [urls] if isinstance(urls, str) else list(urls)
    assert addresses, "no URL"
    mirror = os.environ.get("DATASET_MIRROR", "")
    if not mirror:
        return addresses
    name = addresses[0].rpartition("/")[2]
    if is_web(mirror):
        return [f"{mirror.rstrip('/')}/{name}"]
    if URL.match(mirror):
        raise UserError(f"DATASET_MIRROR={mirror} can't be read: give a URL with http:// or https://, or a folder.")
    path = Path(mirror).expanduser() / name
    if not path.is_file():
        raise UserError(
            f"DATASET_MIRROR={mirror} has no file {name}: copy it there from {addresses[0]}, or unset DATASET_MIRROR."
        )
    return [str(path)]


def is_web(source: str) -> bool:
    """Tell a URL from a path."""
    return source.lower().startswith(("http://", "https://"))


@dataclass
class FileDownload:
    """The download of one file; `say` prints a line, `stop` cancels from outside."""

    urls: str | Sequence[str]
    target: Path
    checksum: str
    size: int | None
    meter: Meter
    say: Callable[[str], None]
    stop: threading.Event
    announced: bool = False  # that it waits for another process

    def run(self) -> None:
        """Fetch the file unless it exists; see `fetch` for the errors."""
        self.check()
        if self.exists():
            return
        sources = sources_of(self.urls)
        try:
            with locked(self.target, self.wait):
                if not self.exists():  # another process may have fetched it
                    self.try_sources(sources)
        except OSError as error:
            reason = f"Cannot write {self.target}: {error.strerror or error}"
            raise UserError(f"{reason}; {way_out(error, ROOM)}.") from error

    def try_sources(self, sources: list[str]) -> None:
        """Try the sources in turn."""
        reasons, advice = [], "check the network or set DATASET_MIRROR to a folder or URL that has it"
        for source in sources:
            try:
                found = self.receive(source, plain=False) or self.receive(source, plain=True)
            except SourceFailed as error:
                reasons.append(str(error))
                advice = ROOM if isinstance(error, NoRoom) else advice
                continue
            if found == self.checksum:
                return
            reasons.append(f"{source} has other content than its publisher's ({found}, not {self.checksum})")
        self.discard_unless_resumable()
        raise UserError(f"Cannot download {self.target.name}: {'; '.join(reasons)}: {advice}, then run again.")

    def receive(self, source: str, plain: bool) -> str:
        """Receive and install; return the checksum found, or "" if it is wrong but may be right when `plain`."""
        unpack = urlsplit(source).path.endswith(".gz") and self.target.suffix != ".gz"
        if is_web(source):
            size = None if unpack else self.size
            one_piece = Transfer(source, self.target, size, self.meter, self.stop).run(plain)
        else:
            one_piece = True
            shutil.copyfile(source, work_path(self.target, ".part"))
        found = self.install(unpack)
        return found if found == self.checksum or one_piece else ""

    def install(self, unpack: bool) -> str:
        """Move the received file to the target if its checksum is right, else delete it; return the checksum found."""
        whole = part = work_path(self.target, ".part")
        try:
            if unpack:
                whole = work_path(self.target, ".unpacked")
                gunzip(part, whole, self.size or MAX_RATIO * part.stat().st_size)
            found = digest(whole, self.checksum, self.check)
            if found == self.checksum:
                os.replace(whole, self.target)
        except (*DAMAGE, UserError) as error:  # UserError: it expands too far
            found = f"damaged: {error}"
        whole.unlink(missing_ok=True)
        discard(part, work_path(self.target, ".state"))
        return found

    def exists(self) -> bool:
        """Return whether the target has the right content."""
        if not self.target.is_file() or digest(self.target, self.checksum, self.check) != self.checksum:
            return False
        self.say(f"{self.target} is already there.")
        return True

    def discard_unless_resumable(self) -> None:
        """Delete the working files of a failed download unless the next run can resume them."""
        part, state = work_path(self.target, ".part"), work_path(self.target, ".state")
        journal = Journal.open(part, state)
        if journal is None or journal.done == 0:
            discard(part, state)

    def wait(self) -> None:
        """Announce once that another process holds the lock."""
        self.check()
        if not self.announced:
            self.say(f"Waiting for another process that is fetching {self.target}.")
        self.announced = True

    def check(self) -> None:
        """Raise if the download has been cancelled."""
        if self.stop.is_set():
            raise Cancelled


class Display:
    """Progress bars on a terminal, plain lines elsewhere. It has no thread of its own: `draw` shows the meters."""

    def __init__(self, meters: list[Meter], quiet: bool) -> None:
        self.meters, self.quiet = meters, quiet
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.tasks: dict[int, Any] = {}  # index of the meter -> its bar
        self.printed: dict[int, tuple[float, int]] = {}  # index of the meter -> time and bytes of its last line
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.bars = open_bars() if terminal and not quiet else None

    def say(self, line: str) -> None:
        """Queue a line for the next `draw`; from any thread."""
        self.lines.put(line)

    def draw(self) -> None:
        """Show what is new."""
        for index, meter in enumerate(self.meters):
            if meter.source and not self.quiet:
                if self.bars is None:
                    self.print_progress(index, meter)
                else:
                    if index not in self.tasks:
                        self.tasks[index] = self.bars.add_task(meter.name, total=meter.total, completed=meter.done)
                    self.bars.update(self.tasks[index], total=meter.total, completed=meter.done, refresh=True)
        while not self.lines.empty():
            line = self.lines.get()
            if self.bars is not None:
                self.bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
            elif not self.quiet:
                print(line, flush=True)

    def print_progress(self, index: int, meter: Meter) -> None:
        """Print a line when a file starts, and every `LINE_S` seconds from then on."""
        now, done = time.monotonic(), meter.done
        if index not in self.printed:
            resumed = f", {meter.resumed / 1e6:.1f} MB of it already here" if meter.resumed else ""
            size = "" if meter.total is None else f" ({meter.total / 1e6:.1f} MB{resumed})"
            print(f"Downloading {meter.source}{size}", flush=True)
        else:
            before, done_before = self.printed[index]
            if now - before < LINE_S:
                return
            speed = max(done - done_before, 0) / (now - before)
            left = f", {(meter.total - done) / speed:.0f} s left" if meter.total and speed else ""
            share = f"{done / meter.total:.0%} of " if meter.total else ""
            size = f"{(meter.total or done) / 1e6:.1f} MB"
            print(f"{meter.name}: {share}{size}, {speed / 1e6:.2f} MB/s{left}", flush=True)
        self.printed[index] = now, done

    def close(self) -> None:
        """Show the final state and restore the terminal."""
        self.draw()
        if self.bars is not None:
            self.bars.stop()


def open_bars() -> Any:
    """Start rich's progress bars on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
    bars.start()
    return bars
