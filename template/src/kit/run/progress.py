"""What a user sees while a network trains: a progress bar on a terminal, one plain line an epoch anywhere else."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

REDRAW_S = 0.1  # seconds between two pictures of the bar


class Progress:
    """Shows a training; epochs are counted from 0, as the trainers do, and shown from 1."""

    def __init__(self, shown: bool = True, stream: TextIO | None = None) -> None:
        """`shown=False` keeps silent (all ranks but the first); `stream` is standard output unless given."""
        self.stream = stream or sys.stdout
        self.shown = shown
        self.on_terminal = shown and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.started = False
        self.total_epochs = 0
        self.bar: Any = None
        self.next_draw = 0.0

    def start(self, total_epochs: int) -> None:
        """Begin to show a training of so many epochs."""
        self.started, self.total_epochs = True, total_epochs
        if self.on_terminal:
            self.bar = open_bar(self.stream)

    def step(self, epoch: int, step: int, total_steps: int, loss: Any, lr: float) -> None:
        """Show step `step` (from 1) of an epoch.

        The loss may be a scalar tensor: it is fetched only when the bar is redrawn, so that a GPU isn't waited for.
        """
        if self.bar is None or (now := time.perf_counter()) < self.next_draw:
            return
        self.next_draw = now + REDRAW_S
        values = f"loss {float(loss):.4f}  lr {lr:.2e}"
        self.bar.update(self.bar.task_ids[0], description=f"epoch {epoch + 1}/{self.total_epochs}", values=values)
        self.bar.update(self.bar.task_ids[0], completed=step, total=total_steps, refresh=True)

    def epoch(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write an epoch's line; of the metrics it shows those with a slash in their name, and `epoch_s`."""
        if not self.shown:
            return
        line = epoch_line(epoch, self.total_epochs, metrics)
        if self.bar is None:
            print(line, file=self.stream, flush=True)
            return
        self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.bar.reset(self.bar.task_ids[0])

    def close(self) -> None:
        """Remove the bar and give the terminal back; safe to call twice, and after a failure."""
        if self.bar is not None:
            self.bar.stop()
        self.started, self.bar = False, None


def epoch_line(epoch: int, total_epochs: int, metrics: Mapping[str, Any]) -> str:
    """Return "epoch 3/10  train/loss 0.123  val/accuracy 0.971  1.2 s", aligned from epoch to epoch."""
    number = f"{epoch + 1:{len(str(total_epochs))}d}"
    parts = [f"epoch {number}/{total_epochs}"]
    parts += [f"{name} {value:.4f}" for name, value in metrics.items() if "/" in name and value is not None]
    if "epoch_s" in metrics:
        parts.append(f"{metrics['epoch_s']:.1f} s")
    return "  ".join(parts)


def open_bar(stream: TextIO) -> Any:
    """Start a rich progress bar that draws only when it is told to: no thread competes with the training."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(compact=True),
        console=Console(file=stream),
        auto_refresh=False,
        transient=True,
    )
    bar.add_task("starting", total=None, values="")
    bar.start()
    return bar
