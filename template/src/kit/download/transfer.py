"""Receive one file from one URL: split into segments, fetched in parallel, journalled on disk to resume after a kill.

`.part` holds the bytes at their final offsets. `.state` holds one line of JSON about the source, then a line of fixed
width for each segment: the offset up to which its bytes are on disk. That number is written in place after the bytes,
so a process that is killed at any moment loses at most one chunk per connection. (A power cut may lose more: the
checksum detects that.)
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from src.kit.download import connection
from src.kit.download.connection import (
    ATTEMPTS,
    Answer,
    Broken,
    NoRoom,
    Restart,
    SourceFailed,
    ask,
    backoff,
    pause,
    retry,
)
from src.kit.download.files import work_path

CONNECTIONS = 8  # at once, over all files
MIN_SEGMENT = 4 << 20  # bytes; smaller files come in one request
MAX_SEGMENT = 64 << 20  # bytes; smaller segments replace a slow connection sooner
CHUNK = 1 << 18  # bytes that each connection holds in memory at most
MIN_SPEED = 256  # bytes a second; a slower connection counts as broken
WIDTH = 20  # digits of an offset in `.state`
SLOTS = threading.BoundedSemaphore(CONNECTIONS)


class Cancelled(Exception):
    """The download is no longer wanted."""


@dataclass
class Meter:
    """Progress of one file: written by the download threads, read by the display."""

    name: str
    source: str = ""  # the URL; empty until bytes arrive
    total: int | None = None  # bytes
    done: int = 0  # bytes
    resumed: int = 0  # bytes from an earlier run


@dataclass
class Segment:
    """Bytes `start` to `stop` (exclusive; None: to the end of the stream); those before `position` are on disk."""

    start: int
    stop: int | None
    position: int

    @property
    def complete(self) -> bool:
        return self.stop is not None and self.position >= self.stop


def plan_segments(total: int) -> list[tuple[int, int]]:
    """Return the segments' bounds: first the one of the opening request, then pieces for the other connections."""
    first = min(MIN_SEGMENT, total)
    length = min(max(-(-(total - first) // (CONNECTIONS - 1)), MIN_SEGMENT), MAX_SEGMENT)
    return [(0, first), *((start, min(start + length, total)) for start in range(first, total, length))]


class Journal:
    """The segments of one file, and their bytes on disk."""

    def __init__(self, part: Path, state: Path, source: str, validators: Mapping[str, str], segments: list[Segment]):
        self.part, self.state = part, state
        self.source, self.validators, self.segments = source, validators, segments
        self.lock = threading.Lock()
        self.table = 0  # offset in `.state` at which the positions begin

    @classmethod
    def create(
        cls,
        part: Path,
        state: Path,
        source: str,
        validators: Mapping[str, str],
        bounds: Sequence[tuple[int, int | None]],
    ) -> "Journal":
        """Start an empty download. An old `.state` goes first, so that it never describes the new, empty `.part`."""
        state.unlink(missing_ok=True)
        part.open("wb").close()
        journal = cls(part, state, source, validators, [Segment(start, stop, start) for start, stop in bounds])
        header = json.dumps({"source": source, "validators": dict(validators), "bounds": bounds}).encode() + b"\n"
        journal.table = len(header)
        state.write_bytes(header + b"".join(position_line(segment.position) for segment in journal.segments))
        return journal

    @classmethod
    def open(cls, part: Path, state: Path) -> "Journal | None":
        """Read what an earlier run left; None if there is nothing, or nothing consistent."""
        try:
            header, _, table = state.read_bytes().partition(b"\n")
            values = json.loads(header)
            positions = [int(table[at : at + WIDTH]) for at in range(0, len(table), WIDTH + 1)]
            segments = [Segment(start, stop, at) for (start, stop), at in zip(values["bounds"], positions, strict=True)]
            journal = cls(part, state, str(values["source"]), dict(values["validators"]), segments)
            size = part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        journal.table = len(header) + 1
        consistent = size <= (journal.total or 0) and all(
            isinstance(each.stop, int)
            and each.start <= each.position <= each.stop
            and (each.position == each.start or each.position <= size)
            for each in segments
        )
        return journal if consistent else None

    def append(self, number: int, file: FileIO, chunk: bytes) -> None:
        """Write a segment's next bytes to `file` (`.part`, opened unbuffered), then its new position to `.state`."""
        left = memoryview(chunk)
        while left:
            left = left[file.write(left) :]
        segment = self.segments[number]
        segment.position += len(chunk)
        with self.lock, self.state.open("r+b", buffering=0) as table:
            table.seek(self.table + number * (WIDTH + 1))
            table.write(position_line(segment.position))

    @property
    def total(self) -> int | None:
        """Bytes of the whole file; None if the server doesn't say."""
        return self.segments[-1].stop

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return sum(segment.position - segment.start for segment in self.segments)


def discard(part: Path, state: Path) -> None:
    """Delete what was received."""
    state.unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def position_line(position: int) -> bytes:
    """Format one line of the table."""
    return f"{position:0{WIDTH}d}\n".encode()


@dataclass
class SegmentFetcher:
    """Fetches segments of `journal` from `source`; `check` raises when the download has been cancelled."""

    source: str
    journal: Journal
    plain: bool  # no ranges: a broken connection starts over
    meter: Meter
    check: Callable[[], None]

    def fetch(self, number: int, answer: Answer | None) -> int:
        """Receive what segment `number` lacks, first from `answer` if there is one; return the number of requests.

        Raises:
            SourceFailed: this URL can't deliver it. Restart: the bytes on disk belong to another file.
        """
        segment = self.journal.segments[number]
        requests = 0

        def attempt() -> None:
            nonlocal answer, requests
            with SLOTS:
                self.check()
                if answer is None:
                    requests += 1
                    answer = self.request(segment.position, segment.stop)
                current, answer = answer, None
                try:
                    self.receive(number, current)
                except Broken as error:
                    if self.plain or segment.stop is None:
                        raise Restart(str(error)) from error
                    raise

        retry(self.source, attempt, lambda: segment.position, self.check)
        return requests

    def request(self, start: int, stop: int | None) -> Answer:
        """Request a part of the file, and make sure that it belongs to the same file as the rest."""
        known = self.journal.validators if self.journal.source == self.source else {}  # mirrors have their own
        answer = ask(self.source, start, stop, known)
        name = next((name for name in ("ETag", "Last-Modified") if name in known and name in answer.validators), None)
        if (
            answer.ranged
            and answer.total == self.journal.total
            and (not name or known[name] == answer.validators[name])
        ):
            return answer
        answer.body.close()
        raise Restart("the file has changed" if answer.ranged else "the server sent the whole file, not a part")

    def receive(self, number: int, answer: Answer) -> None:
        """Write the bytes of one answer as they arrive."""
        segment = self.journal.segments[number]
        with answer.body, FileIO(self.journal.part, "r+") as file:
            file.seek(segment.position)
            since, before = time.monotonic(), segment.position
            while not segment.complete:
                self.check()
                chunk = answer.read(CHUNK if segment.stop is None else min(CHUNK, segment.stop - segment.position))
                if not chunk:
                    break
                self.journal.append(number, file, chunk)
                self.meter.done = self.journal.done
                if (elapsed := time.monotonic() - since) > connection.TIMEOUT_S:
                    if segment.position - before < MIN_SPEED * elapsed:
                        raise Broken(f"slower than {MIN_SPEED} bytes a second")
                    since, before = time.monotonic(), segment.position
        if segment.stop is None:
            segment.stop = segment.position
        if not segment.complete:
            raise Broken(f"the connection broke after {segment.position} of {self.journal.total} bytes")


class Transfer:
    """Fetches the `.part` file of `target` from `source`; set `stop` to cancel."""

    def __init__(self, source: str, target: Path, size: int | None, meter: Meter, stop: threading.Event) -> None:
        self.source, self.size, self.meter, self.stop = source, size, meter, stop
        self.part, self.state = work_path(target, ".part"), work_path(target, ".state")
        self.failed = threading.Event()  # one segment failed: the others needn't go on

    def run(self, plain: bool) -> bool:
        """Receive the whole file; `plain` requests all of it at once, without ranges.

        Returns:
            whether it came in one piece: wrong content is then the server's fault, not that of ranges or an old part.

        Raises:
            SourceFailed: this URL can't deliver it. What was received stays, for the next run or another mirror.
        """
        reason = ""
        for restart in range(ATTEMPTS):
            if restart > 1:
                pause(backoff(restart), self.check)
            try:
                # Some servers send another ETag with every answer: the third attempt does without ranges.
                return self.receive(plain or restart > 1)
            except Restart as error:
                self.failed.clear()
                discard(self.part, self.state)
                reason, plain = str(error), plain or error.distrust
        raise SourceFailed(f"{self.source} ({reason})")

    def receive(self, plain: bool) -> bool:
        """Receive what is missing; return whether the file came in one piece."""
        answer, journal = None, None if plain else Journal.open(self.part, self.state)
        if journal is None or self.size not in (None, journal.total):
            answer, journal = self.start(plain)
        one_piece = plain or (answer is not None and not answer.ranged)
        self.meter.total, self.meter.done, self.meter.resumed = journal.total, journal.done, journal.done
        self.meter.source = self.source  # from here on the display shows it
        fetcher = SegmentFetcher(self.source, journal, plain, self.meter, self.check)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            missing = [number for number, segment in enumerate(journal.segments) if not segment.complete]
            futures = [pool.submit(fetcher.fetch, number, answer if number == 0 else None) for number in missing]
            wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.done() and future.exception() for future in futures):
                self.failed.set()
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):  # the cause first
            raise error
        return one_piece and not any(future.result() for future in futures)

    def start(self, plain: bool) -> tuple[Answer, Journal]:
        """Request the first bytes; the answer tells the size and whether the server supports ranges."""
        stop = None if plain else MIN_SEGMENT
        answer = retry(self.source, lambda: ask(self.source, 0, stop, {}), lambda: 0, self.check)
        total = self.size if answer.total is None else answer.total
        free = shutil.disk_usage(self.part.parent).free
        complaint, failure = "", SourceFailed
        if self.size not in (None, total):
            complaint = f"{self.source} has {total} bytes, but its publisher's file has {self.size}"
        elif total and total > free:
            complaint = f"{self.source} has {total / 1e6:,.1f} MB, but the disk has only {free / 1e6:,.1f} MB free"
            failure = NoRoom
        if complaint:
            answer.body.close()
            raise failure(complaint) if plain else Restart(complaint, distrust=True)
        bounds = plan_segments(total) if answer.ranged and total is not None else [(0, total)]
        return answer, Journal.create(self.part, self.state, self.source, answer.validators, bounds)

    def check(self) -> None:
        """Raise if the download has been cancelled."""
        if self.stop.is_set() or self.failed.is_set():
            raise Cancelled
