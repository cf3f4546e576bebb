"""What a download has received so far, kept on disk beside it so that the next run goes on where this one was killed.

`.part` holds the bytes at their final places. `.state` holds one line of JSON about the source, then one line of fixed
width for each segment: up to where its bytes are there. That number is written after the bytes, in place, so a process
that is killed anywhere loses at most the chunk in its hands. (A power cut may lose more: the checksum tells.)
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

WIDTH = 20  # digits of a position


@dataclass
class Segment:
    """Bytes `start` to `stop` (exclusive; None = to the stream's end); those before `position` are there."""

    start: int
    stop: int | None
    position: int

    @property
    def complete(self) -> bool:
        return self.stop is not None and self.position >= self.stop


class Journal:
    """The segments of one file, and their bytes on disk."""

    def __init__(self, part: Path, state: Path, source: str, validators: Mapping[str, str], segments: list[Segment]):
        self.part, self.state = part, state
        self.source, self.validators, self.segments = source, validators, segments
        self.lock = threading.Lock()
        self.table = 0  # where the positions begin in `.state`

    @classmethod
    def begin(
        cls,
        part: Path,
        state: Path,
        source: str,
        validators: Mapping[str, str],
        bounds: Sequence[tuple[int, int | None]],
    ) -> "Journal":
        """Start with nothing. An older `.state` goes first, so that it never describes the new, empty `.part`."""
        state.unlink(missing_ok=True)
        part.open("wb").close()
        journal = cls(part, state, source, validators, [Segment(start, stop, start) for start, stop in bounds])
        header = json.dumps({"source": source, "validators": dict(validators), "bounds": bounds}).encode() + b"\n"
        journal.table = len(header)
        state.write_bytes(header + b"".join(line(segment.position) for segment in journal.segments))
        return journal

    @classmethod
    def load(cls, part: Path, state: Path) -> "Journal | None":
        """Read what an earlier run left; None if there is nothing, or nothing that makes sense."""
        try:
            header, _, table = state.read_bytes().partition(b"\n")
            read = json.loads(header)
            positions = [int(table[at : at + WIDTH]) for at in range(0, len(table), WIDTH + 1)]
            segments = [Segment(start, stop, at) for (start, stop), at in zip(read["bounds"], positions, strict=True)]
            journal = cls(part, state, str(read["source"]), dict(read["validators"]), segments)
            there = part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return None
        journal.table = len(header) + 1
        sound = there <= (journal.total or 0) and all(
            isinstance(each.stop, int)
            and each.start <= each.position <= each.stop
            and (each.position == each.start or each.position <= there)
            for each in segments
        )
        return journal if sound else None

    def append(self, number: int, file: FileIO, chunk: bytes) -> None:
        """Write a segment's next bytes to `file`, which is `.part` opened unbuffered, and then its new position."""
        left = memoryview(chunk)
        while left:
            left = left[file.write(left) :]
        segment = self.segments[number]
        segment.position += len(chunk)
        with self.lock, self.state.open("r+b", buffering=0) as table:
            table.seek(self.table + number * (WIDTH + 1))
            table.write(line(segment.position))

    @property
    def total(self) -> int | None:
        """Bytes of the whole file; None if the server does not say."""
        return self.segments[-1].stop

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(segment.position - segment.start for segment in self.segments)


def discard(part: Path, state: Path) -> None:
    """Forget what was received."""
    state.unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def line(position: int) -> bytes:
    """One line of the table."""
    return f"{position:0{WIDTH}d}\n".encode()
