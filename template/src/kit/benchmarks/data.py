"""Rates of loading and training, measured in alternating rounds, so that a busy machine slows all sides alike."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from src.kit.loading import Split
from src.kit.run import Progress

WARM_UP = 3  # steps that are not timed: they allocate memory and the optimizer's state
Result = TypeVar("Result")
REPEATS = 100  # so that no epoch ends during a measurement: threads and processes would restart


class PillowSamples:
    """A data set as in tutorials: (transformed PIL image, class number); the samples repeat `REPEATS` times."""

    def __init__(self, split: Split, transform: Callable[[Any], Any]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return REPEATS * len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        images, index = self.split.images, index % len(self.split)
        if hasattr(images, "paths"):
            with Image.open(images.paths[index]) as opened:
                image = opened.convert("RGB")
        else:
            array = images.get(np.array([index]))[0]
            image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        return self.transform(image), int(self.split.targets[index])


class StepTimer(Progress):
    """Times an epoch from its first step to its last; of several epochs it skips the first, which decodes images.

    Every side calls it at the same point of its steps, so that all are timed over the same work.
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        """`wait` blocks until the device is idle."""
        super().__init__(shown=False)
        self.wait, self.steps, self.begun, self.last = wait, 0, 0.0, 0.0
        self.windows: list[tuple[float, float]] = []
        self.validations: list[float] = []

    def step(self, epoch: int, step: int, total_steps: int, loss: Any = None, lr: float = 0.0) -> None:
        first = WARM_UP if self.total_epochs == 1 else 1
        if step not in (first, total_steps) or epoch < min(1, self.total_epochs - 1):
            return
        self.wait()
        self.last = time.perf_counter()
        if step == first:
            self.begun = self.last
        else:
            self.windows.append((self.begun, self.last))
            self.steps += step - first

    def epoch(self, epoch: int, metrics: Any) -> None:
        if self.windows:
            self.validations.append(time.perf_counter() - self.last)


def measure_in_turns(sides: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Measure all sides in turn, for `rounds` rounds after a warm-up round; returns each side's results."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            result = side()
            if number:
                results[name].append(result)
    return results


def loading_rate(source: Iterable[Any], seconds: float) -> float:
    """Images a second after the first batch, so that starting threads or processes does not count."""
    with closing(repeat_epochs(source)) as iterator:
        next(iterator)
        started, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds or count == 0:
            count += len(next(iterator)[1])
    return count / passed


def training_rate(trainer: Any, source: Iterable[Any], seconds: float) -> float:
    """Images a second through forward pass, backward pass and optimizer.

    `trainer` has `step(batch)` and `wait()`, as `Trainer` of src/kit/<framework>/benchmark.py.
    """
    with closing(repeat_epochs(source)) as batches:
        trainer.step(next(batches))
        trainer.wait()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds or count == 0:
            batch = next(batches)
            trainer.step(batch)
            count += len(batch[1])
        trainer.wait()
    return count / (time.perf_counter() - started)


def multiplication_rate(product: Callable[[], int], wait: Callable[[], None], seconds: float) -> float:
    """Operations a second of matrix products; `product` computes one and returns its operations."""
    product()
    wait()
    started, flops = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or flops == 0:
        flops += product()
    wait()
    return flops / (time.perf_counter() - started)


def repeat_epochs(batches: Any) -> Generator[Any, None, None]:
    """The batches of epoch after epoch, without end."""
    epoch = 0
    while True:
        loader = getattr(batches, "loader", batches)
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from batches
        epoch += 1
