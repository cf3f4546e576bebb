"""How fast data come and are trained on, in rounds that alternate, so that a busy machine slows both sides alike."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import numpy as np

from src.kit.loading import Split
from src.kit.run import Progress

WARM_UP = 3  # steps that do not count: memory is taken and the optimizer's state is made
Result = TypeVar("Result")
REPEATS = 100  # so that no epoch ends while it is measured: threads and processes would start anew


class Pillow:
    """The plain way, sample by sample: (transformed PIL image, class number), all samples `REPEATS` times over."""

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


class Clock(Progress):
    """Notes the time from an epoch's first step to its last; of several epochs the first, which decodes, is left out.

    Every side calls it at the same point of its steps, so that all of them are measured over the same work.
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        """`wait` returns when the device has done all."""
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


def alternate(sides: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Measure all sides in turn, `rounds` times after a first one that does not count."""
    found: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            result = side()
            if number:
                found[name].append(result)
    return found


def loading(source: Iterable[Any], seconds: float) -> float:
    """Images a second from the first batch on, so that the start of threads or processes does not count."""
    with closing(endless(source)) as iterator:
        next(iterator)
        started, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds or count == 0:
            count += len(next(iterator)[1])
    return count / passed


def training(trainer: Any, source: Iterable[Any], seconds: float) -> float:
    """Images a second through forward pass, backward pass and optimizer."""
    with closing(endless(source)) as batches:
        trainer.step(next(batches))
        trainer.wait()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds or count == 0:
            batch = next(batches)
            trainer.step(batch)
            count += len(batch[1])
        trainer.wait()
    return count / (time.perf_counter() - started)


def multiplying(product: Callable[[], int], wait: Callable[[], None], seconds: float) -> float:
    """Operations a second of matrix products, each of which says how many it took."""
    product()
    wait()
    started, flops = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or flops == 0:
        flops += product()
    wait()
    return flops / (time.perf_counter() - started)


def endless(batches: Any) -> Generator[Any, None, None]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        loader = getattr(batches, "loader", batches)
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from batches
        epoch += 1
