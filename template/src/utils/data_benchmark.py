"""How fast data come and are trained on, in rounds that alternate, so that a busy machine slows both sides alike."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.datasets.base import Split
from src.datasets.loading.cache import keep_decoded
from src.datasets.loading.prefetch import choose_workers
from src.trainers.builders import build_loader

TURNS = 4  # of training in the time of one measurement of loading
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


def measure(cfg: DictConfig, split: Split, backend: Any, seconds: float, rounds: int) -> dict[str, Any]:
    """Images a second of this project's batches, of Pillow and the framework's DataLoader, and of training.

    Args:
        backend: `src/trainers/lightning_benchmark.py` or `paddle_benchmark.py`.
        seconds: of each measurement in each round.

    Returns:
        rates (images a second, the median of the rounds) and ratios (the medians of each round's own).
    """
    workers = choose_workers(in_memory=False)
    in_memory = split.images.in_memory
    repeated = split if in_memory else split.take(np.tile(np.arange(len(split)), REPEATS))
    sources = {"ours": build_loader(cfg, repeated, "train"), "plain": backend.plain_loader(cfg, split, workers)}
    if not in_memory:
        sources["cached"] = build_loader(cfg, keep_decoded(split, "memory"), "train")
        deque(sources["cached"], maxlen=0)  # the epoch in which it decodes
    rates = alternate({name: partial(loading, source, seconds) for name, source in sources.items()}, rounds)
    trainer = backend.Trainer(cfg, split)
    sides = {"synthetic": [trainer.synthetic()], "real": trainer.real()}
    turns = {name: partial(training, trainer, source, seconds / TURNS) for name, source in sides.items()}
    rates |= alternate(turns, TURNS * rounds)
    pairs = {
        "ours / plain": ("ours", "plain"),
        "cached / plain": ("cached", "plain"),
        "real / synthetic": ("real", "synthetic"),
    }
    ratios = {
        name: median(np.divide(rates[one], rates[other]).tolist())
        for name, (one, other) in pairs.items()
        if one in rates
    }
    return {"rates": {name: median(values) for name, values in rates.items()}, "ratios": ratios, "workers": workers}


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure all sides in turn, `rounds` times after a first one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            rate = side()
            if number:
                found[name].append(rate)
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


def endless(batches: Any) -> Generator[Any, None, None]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        loader = getattr(batches, "loader", batches)
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(epoch)
        yield from batches
        epoch += 1
