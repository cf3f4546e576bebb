"""Receive one file from one address: its size, its segments, all of them at once, and anew where it has changed."""

import shutil
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from src.kit.download import segments
from src.kit.download.cache import work_path
from src.kit.download.connection import Answer, Restart, SourceFailed, ask
from src.kit.download.display import Meter
from src.kit.download.journal import Journal, discard
from src.kit.download.retry import ATTEMPTS, backoff, pause, retry


class Stopped(Exception):
    """The download is no longer wanted."""


class Transfer:
    """Brings the `.part` of `target` from `source`; `stop` ends it from outside."""

    def __init__(self, source: str, target: Path, size: int | None, meter: Meter, stop: threading.Event) -> None:
        self.source, self.size, self.meter, self.stop = source, size, meter, stop
        self.part, self.state = work_path(target, ".part"), work_path(target, ".state")
        self.failed = threading.Event()  # one segment has: the others needn't go on

    def run(self, plain: bool) -> bool:
        """Receive the whole file; `plain` asks for all of it in one go, without ranges.

        Returns:
            whether it came in one go, so that wrong content is the server's and not due to ranges or an older part.

        Raises:
            SourceFailed: not to be had from here. What was received stays, for the next run or another mirror.
        """
        reason = ""
        for restart in range(ATTEMPTS):
            if restart > 1:
                pause(backoff(restart), self.check)
            try:
                # some servers give every answer another ETag: the third time does without ranges
                return self.receive(plain or restart > 1)
            except Restart as error:
                self.failed.clear()
                discard(self.part, self.state)
                reason, plain = str(error), plain or error.distrust
        raise SourceFailed(f"{self.source} ({reason})")

    def receive(self, straight: bool) -> bool:
        """Receive what is missing; returns whether it came in one go."""
        answer, journal = None, None if straight else Journal.load(self.part, self.state)
        if journal is None or self.size not in (None, journal.total):
            answer, journal = self.begin(straight)
        one_go = straight or (answer is not None and not answer.ranged)
        self.meter.total, self.meter.done, self.meter.kept = journal.total, journal.done, journal.done
        self.meter.source = self.source  # from here on it is shown
        filler = segments.Filler(self.source, journal, straight, self.meter, self.check)
        with ThreadPoolExecutor(segments.CONNECTIONS) as pool:
            missing = [number for number, segment in enumerate(journal.segments) if not segment.complete]
            futures = [pool.submit(filler.fill, number, answer if number == 0 else None) for number in missing]
            wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.done() and future.exception() for future in futures):
                self.failed.set()
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return one_go and not any(future.result() for future in futures)

    def begin(self, straight: bool) -> tuple[Answer, Journal]:
        """Request the first bytes, whose answer tells the size and whether there may be several segments."""
        stop = None if straight else segments.MIN_SEGMENT
        answer = retry(self.source, lambda: ask(self.source, 0, stop, {}), lambda: 0, self.check)
        total = self.size if answer.total is None else answer.total
        free = shutil.disk_usage(self.part.parent).free
        complaint = ""
        if self.size not in (None, total):
            complaint = f"{self.source} has {total} bytes, not {self.size} as its publisher's"
        elif total and total > free:
            complaint = f"{self.source} has {total / 1e9:.1f} GB, and only {free / 1e9:.1f} GB are free on the disk"
        if complaint:
            answer.body.close()
            raise SourceFailed(complaint) if straight else Restart(complaint, distrust=True)
        bounds = segments.plan(total) if answer.ranged and total is not None else [(0, total)]
        return answer, Journal.begin(self.part, self.state, self.source, answer.validators, bounds)

    def check(self) -> None:
        """Raise if the download is no longer wanted."""
        if self.stop.is_set() or self.failed.is_set():
            raise Stopped
