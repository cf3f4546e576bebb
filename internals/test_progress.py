"""A bar on a terminal, plain lines elsewhere, and next to no cost in either case."""

import io
import time
from pathlib import Path

import pytest

from src.kit.config import load_config
from src.kit.run import Progress, Run, epoch_line

ROW = {
    "epoch": 3,
    "step": 30,
    "lr": 0.1,
    "train/loss": 0.1234,
    "val/loss": 0.101,
    "val/accuracy": 0.971,
    "epoch_s": 1.24,
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def train(progress: Progress, epochs: int = 2, steps: int = 3) -> None:
    progress.start(epochs)
    for epoch in range(epochs):
        for step in range(1, steps + 1):
            progress.next_draw = 0  # as if the time for the next picture had come
            progress.step(epoch, step, steps, 0.5, 1e-3)
        progress.epoch(epoch, ROW)
    progress.close()


def test_epoch_line() -> None:
    expected = "epoch  3/10  train/loss 0.1234  val/loss 0.1010  val/accuracy 0.9710  1.2 s"
    assert epoch_line(2, 10, ROW) == expected


def test_one_plain_line_an_epoch_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    train(Progress(stream=stream))
    assert stream.getvalue().splitlines() == [epoch_line(0, 2, ROW), epoch_line(1, 2, ROW)]


def test_a_warning_has_a_line_above_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", stream := Terminal())
    with Run(load_config([f"output_dir={tmp_path.as_posix()}", "tracker=none"])) as run:
        run.progress.start(2)
        run.progress.step(0, 1, 3, 0.5, 1e-3)
        run.log.warning("Memory has grown.")
        run.progress.close()
        run.log.warning("The end.")
    lines = [line.rpartition("\x1b[2K")[2] for line in stream.getvalue().splitlines()]
    assert "Memory has grown." in lines
    assert lines[-1] == "The end."


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    train(Progress(stream=stream))
    text = stream.getvalue()
    assert "epoch 2/2" in text
    assert "3/3" in text
    assert "loss 0.5000" in text
    assert epoch_line(1, 2, ROW) in text
    assert "\x1b[?25h" in text, "the cursor must be shown again"


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    train(Progress(stream=stream))
    assert "\x1b" not in stream.getvalue()


def test_other_ranks_are_silent() -> None:
    stream = Terminal()
    train(Progress(shown=False, stream=stream))
    assert stream.getvalue() == ""


def test_close_gives_the_terminal_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(stream=stream)
    progress.start(1)
    progress.close()
    progress.close()
    assert "\x1b[?25h" in stream.getvalue()
    assert not progress.started


class Loss:
    """A loss on a device: to read it is to wait."""

    reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 1.0


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_step_costs_next_to_nothing_and_does_not_fetch_the_loss(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    progress, loss = Progress(stream=stream), Loss()
    progress.start(1)
    progress.step(0, 1, 10_000, loss, 0.1)
    read = loss.reads
    progress.next_draw += 60  # only the throttled path is measured
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        for step in range(2000):
            progress.step(0, step, 10_000, loss, 0.1)
        best = min(best, (time.perf_counter() - start) / 2000)
    progress.close()
    assert loss.reads == read
    assert best < 5e-6, f"{best * 1e6:.2f} microseconds a step"
