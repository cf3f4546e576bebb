"""Divide a file into segments, and fill one of them over as many connections, one after another, as it takes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO

from src.kit.download import connection
from src.kit.download.connection import Answer, Broken, Restart, ask
from src.kit.download.display import Meter
from src.kit.download.journal import Journal
from src.kit.download.retry import retry

CONNECTIONS = 8  # at once, over all files
MIN_SEGMENT = 4 << 20  # bytes; smaller files come in one request
MAX_SEGMENT = 64 << 20  # the smaller, the sooner a slow connection is replaced
CHUNK = 1 << 18  # bytes in hand at most, for each connection
SLOWEST = 256  # bytes a second, below which a connection counts as broken
SLOTS = threading.BoundedSemaphore(CONNECTIONS)


def plan(total: int) -> list[tuple[int, int]]:
    """The bounds of the segments: the first request's, then pieces for the other connections."""
    first = min(MIN_SEGMENT, total)
    length = min(max(-(-(total - first) // (CONNECTIONS - 1)), MIN_SEGMENT), MAX_SEGMENT)
    return [(0, first), *((start, min(start + length, total)) for start in range(first, total, length))]


@dataclass
class Filler:
    """Fills segments of `journal` from `source`; `check` raises when the download is no longer wanted."""

    source: str
    journal: Journal
    straight: bool  # no second connection: what breaks begins anew
    meter: Meter
    check: Callable[[], None]

    def fill(self, number: int, answer: Answer | None) -> int:
        """Receive what segment `number` lacks, first from `answer` if it is given; returns the requests made.

        Raises:
            SourceFailed: not to be had from here. Restart: the bytes that are there are of another file.
        """
        segment = self.journal.segments[number]
        requests = 0

        def attempt() -> None:
            nonlocal answer, requests
            with SLOTS:
                self.check()
                if answer is None:
                    requests += 1
                    answer = self.ask(segment.position, segment.stop)
                given, answer = answer, None
                try:
                    self.receive(number, given)
                except Broken as error:
                    if self.straight or segment.stop is None:
                        raise Restart(str(error)) from error
                    raise

        retry(self.source, attempt, lambda: segment.position, self.check)
        return requests

    def ask(self, start: int, stop: int | None) -> Answer:
        """Request a part of the file, and make sure that it is of the same file as the rest."""
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
        """Write one answer's bytes to their place as they come."""
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
                if (waited := time.monotonic() - since) > connection.TIMEOUT_S:
                    if segment.position - before < SLOWEST * waited:
                        raise Broken(f"slower than {SLOWEST} bytes a second")
                    since, before = time.monotonic(), segment.position
        if segment.stop is None:
            segment.stop = segment.position
        if not segment.complete:
            raise Broken(f"the connection broke after {segment.position} of {self.journal.total} bytes")
