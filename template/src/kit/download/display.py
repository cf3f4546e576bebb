"""What a user sees while files come in: bars with speed and time left on a terminal, plain lines anywhere else."""

import os
import queue
import sys
import time
from dataclasses import dataclass, field
from typing import Any

LINE_S = 10.0  # between two lines about one file


@dataclass
class Meter:
    """One file's progress: written by the threads that download, read by the one that shows it."""

    name: str
    source: str = ""  # where from; empty while nothing comes
    total: int | None = None  # bytes
    done: int = 0  # bytes
    kept: int = 0  # bytes of an earlier run
    task: Any = None  # the bar
    shown_s: float = field(default=0.0)  # when the last line was written
    shown_done: int = 0


class Display:
    """Shows the meters whenever `draw` is called: there is no thread of its own."""

    def __init__(self, meters: list[Meter], quiet: bool) -> None:
        self.meters, self.quiet = meters, quiet
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.bars = open_bars() if terminal and not quiet else None

    def say(self, line: str) -> None:
        """Show a line at the next `draw`; from any thread."""
        self.lines.put(line)

    def draw(self) -> None:
        """Show what is new."""
        for meter in self.meters:
            if meter.source and not self.quiet:
                if self.bars is None:
                    self.draw_line(meter)
                else:
                    self.draw_bar(meter)
        while not self.lines.empty():
            line = self.lines.get()
            if self.bars is not None:
                self.bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
            elif not self.quiet:
                print(line, flush=True)

    def draw_bar(self, meter: Meter) -> None:
        """Move one bar."""
        assert self.bars is not None
        if meter.task is None:
            meter.task = self.bars.add_task(meter.name, total=meter.total, completed=meter.done)
        self.bars.update(meter.task, total=meter.total, completed=meter.done, refresh=True)

    def draw_line(self, meter: Meter) -> None:
        """Write a line when a file begins, and every `LINE_S` seconds after that."""
        now, done = time.monotonic(), meter.done
        kept = f", {meter.kept / 1e6:.1f} MB of it are here already" if meter.kept else ""
        size = "" if meter.total is None else f" ({meter.total / 1e6:.1f} MB{kept})"
        if not meter.shown_s:
            print(f"Downloading {meter.source}{size}", flush=True)
        elif now - meter.shown_s < LINE_S:
            return
        else:
            speed = max(done - meter.shown_done, 0) / (now - meter.shown_s)
            left = f", {(meter.total - done) / speed:.0f} s left" if meter.total and speed else ""
            share = f"{done / meter.total:.0%} of " if meter.total else ""
            size = f"{(meter.total or done) / 1e6:.1f} MB"
            print(f"{meter.name}: {share}{size}, {speed / 1e6:.2f} MB/s{left}", flush=True)
        meter.shown_s, meter.shown_done = now, done

    def close(self) -> None:
        """Show the last state and give the terminal back."""
        self.draw()
        if self.bars is not None:
            self.bars.stop()


def open_bars() -> Any:
    """Start rich's bars, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
    bars.start()
    return bars
