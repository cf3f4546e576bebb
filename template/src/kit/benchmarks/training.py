"""Speed of a configured training next to a hand-written loop and one without data, in alternating rounds."""

import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.hardware import SystemProbe, Utilisation, free_ram, peak_flops, peak_mib
from src.kit.loading import Split, choose_cache, keep_decoded, largest_batch
from src.kit.run import Progress, Run
from src.kit.training import Experiment, load_trainer

os.environ.setdefault("GLOG_minloglevel", "2")  # before Paddle loads: silences its warnings of static programs
WARM_UP = 3  # steps that are not timed: they allocate memory and the optimizer's state
Result = TypeVar("Result")
REPEATS = 100  # so that no epoch ends during a measurement: threads and processes would restart
LEAST_S = 30.0  # for all rounds: starting a side takes seconds, whatever time it is measured for
PILOT_STEPS = 5  # to find out how many steps fill the time
SIDES = {"ours": "this project", "by_hand": "loop by hand", "synthetic": "synthetic data"}
OPTIONAL = ("gpu_busy", "allocated_mib", "reserved_mib")  # figures that not every device has
Row = dict[str, Any]


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


def measure_in_turns(
    sides: Mapping[str, Callable[[], Result]],
    rounds: int,
    limit_s: float = math.inf,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, list[Result]]:
    """Measure all sides in turn, for `rounds` rounds after a warm-up round; returns each side's results.

    Args:
        limit_s: no further round starts that would end later, as long as the last one took; one round always does.
        say: is told what is being measured.
    """
    results: dict[str, list[Result]] = {name: [] for name in sides}
    started = time.perf_counter()
    for number in range(rounds + 1):
        begun = time.perf_counter()
        for name, side in sides.items():
            say(f"{f'round {number} of {rounds}' if number else 'warm-up'}: {SIDES.get(name, name)}")
            result = side()
            if number:
                results[name].append(result)
        ended = time.perf_counter()
        if 0 < number < rounds and 2 * ended - begun - started > limit_s:
            say(f"stopped after round {number}: another one would not fit into {limit_s:.0f} s")
            break
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


def measure_training(
    cfg: DictConfig, backend: Any, seconds: float, rounds: int, say: Callable[[str], object] = lambda text: None
) -> Row:
    """Steps, operations and memory of our trainer, of a hand-written loop on the same data, and on synthetic data.

    Args:
        backend: the module src/kit/<framework>/benchmark.py.
        seconds: approximate time of each side in each round; rounds end when twice that time of all of them is over.
        say: is told what is being measured.

    Raises:
        UserError: an epoch of one batch, and whatever the training itself would raise.
    """
    experiment = Experiment(cfg)
    splits = decode_once(experiment.cfg, {name: experiment.split(name) for name in ("train", "val")})
    experiment, cfg = Experiment(experiment.cfg, splits), experiment.cfg
    split, ours = splits["train"], partial(train, splits)
    loader, val_loader = experiment.build_loader("train"), experiment.build_loader("val")
    if len(loader) < 2:
        raise UserError("The benchmark needs two batches an epoch: make data.batch_size smaller.")
    say(f"how long a step takes: {PILOT_STEPS + WARM_UP} steps")
    pilot_cfg = shorten(cfg, len(loader), len(val_loader), PILOT_STEPS)
    pilot = measure_side(backend, ours, pilot_cfg)
    memory_mib = peak_mib()  # before another side raises it
    val_steps = pilot["val_s"] / pilot_cfg.trainer.limit_val_batches * len(val_loader) / pilot["step_s"]
    short = shorten(cfg, len(loader), len(val_loader), math.ceil(seconds / pilot["step_s"]), val_steps)
    gpu, flops = backend.gpu_name(cfg), backend.Trainer(cfg, split).flops()
    known_peak = peak_flops(gpu, cfg.trainer.precision)
    sides: dict[str, Callable[[], Row]] = {
        "ours": partial(measure_side, backend, ours, short),
        "by_hand": partial(measure_side, backend, partial(train_by_hand, backend, split), short),
        "synthetic": partial(measure_side, backend, partial(train_by_hand, backend, split, synthetic=True), short),
    }
    if not known_peak:
        sides["product"] = partial(measure_product, backend, cfg, seconds / 4)
    limit_s = max(LEAST_S, 2 * seconds * len(sides) * (rounds + 1))
    results = measure_in_turns(sides, rounds, limit_s, say)
    products = results.pop("product", [{}] * len(results["ours"]))
    peaks = np.array([known_peak or row["flops"] for row in products])
    val_s = median(row["val_s"] for row in results["ours"]) * len(val_loader) / short.trainer.limit_val_batches
    sizes = {"steps": len(loader), "samples": min(loader.samples, len(loader) * largest_batch(cfg))}
    peak = {"peak_flops": float(np.median(peaks)), "peak_of": "datasheet" if known_peak else "measured matrix product"}
    rest = {"step_flops": flops, **peak, "memory_mib": memory_mib, "validation_s": val_s}
    return {"device": gpu or "CPU", **sizes, **rest, **summarise_sides(results, sizes, flops, peaks)}


def summarise_sides(
    results: Mapping[str, Sequence[Row]], sizes: Mapping[str, int], flops: int | None, peaks: np.ndarray
) -> Row:
    """Medians of each side, and the ratios of our speed to the others'.

    Args:
        sizes: `steps` and `samples` of an epoch.
        flops: operations of a step.
        peaks: the device's operations a second in each round.
    """
    speeds = {name: np.array([1 / row["step_s"] for row in rows]) for name, rows in results.items()}
    batch = sizes["samples"] / sizes["steps"]
    sides = {}
    for name, rows in results.items():
        step_s = 1 / float(np.median(speeds[name]))
        sides[name] = {
            "samples_per_s": batch / step_s,
            "step_ms": 1000 * step_s,
            "epoch_s": step_s * sizes["steps"],
            "mfu": float(np.median(flops * speeds[name] / peaks)) if flops else None,
            "rounds_samples_per_s": (batch * speeds[name]).tolist(),
            **{key: known_median([row.get(key) for row in rows]) for key in OPTIONAL},
        }
    ratios = {f"ours / {name}": float(np.median(speeds["ours"] / speeds[name])) for name in ("by_hand", "synthetic")}
    return {"sides": sides, "ratios": ratios}


def known_median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are not None."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def shorten(cfg: DictConfig, batches: int, val_batches: int, steps: int, val_steps: float = 0.0) -> DictConfig:
    """A training as long as `steps` steps: the same part of an epoch and of its validation, or several epochs.

    `val_steps` is how many steps a validation takes the time of.
    """
    short, train_batches = cfg.copy(), min(batches, WARM_UP + steps)
    short.trainer.limit_train_batches = train_batches
    short.trainer.limit_val_batches = math.ceil(val_batches * train_batches / batches)
    short.trainer.max_epochs = 1 if train_batches < batches else 1 + math.ceil(steps / (batches + val_steps))
    return short


def measure_side(backend: Any, side: Callable[[DictConfig, StepTimer], None], cfg: DictConfig) -> Row:
    """Run a side once: seconds of a step and a validation, and the GPU's utilisation and memory."""
    gc.collect()  # the previous side's network
    backend.reset_peak_memory(cfg)
    timer = StepTimer(partial(backend.wait, cfg))
    with Utilisation(asked=bool(backend.gpu_name(cfg))) as gpu:
        side(cfg, timer)
    step_s = sum(end - begin for begin, end in timer.windows) / timer.steps
    val_s = median(timer.validations) if timer.validations else None
    return {"step_s": step_s, "val_s": val_s, "gpu_busy": gpu.mean(timer.windows), **backend.peak_memory(cfg)}


def decode_once(cfg: DictConfig, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Splits whose images all sides share, if training keeps decoded ones: each start would decode them all again."""
    if choose_cache(cfg, list(splits.values()), free_ram(SystemProbe())) == "none":
        return dict(splits)
    return {name: keep_decoded(split, "memory") for name, split in splits.items()}


def train(splits: Mapping[str, Any], cfg: DictConfig, timer: StepTimer) -> None:
    """Our trainer, as scripts/train.py calls it, in a temporary run folder."""
    with tempfile.TemporaryDirectory() as folder:
        own = cfg.copy()
        own.output_dir = folder
        with Run(own) as run:
            run.progress = timer
            load_trainer(cfg).fit(Experiment(own, splits), run)


def train_by_hand(backend: Any, split: Any, cfg: DictConfig, timer: StepTimer, synthetic: bool = False) -> None:
    """Forward pass, backward pass and optimizer on the same batches, or on one batch that stays on the device."""
    trainer = backend.Trainer(cfg, split)
    timer.start(cfg.trainer.max_epochs)
    batches: Any = [trainer.synthetic()] * cfg.trainer.limit_train_batches if synthetic else trainer.real()
    for epoch in range(cfg.trainer.max_epochs):
        if not synthetic:
            batches.loader.set_epoch(epoch)
        for number, batch in enumerate(batches, 1):
            trainer.step(batch)
            timer.step(epoch, number, len(batches))


def measure_product(backend: Any, cfg: DictConfig, seconds: float) -> Row:
    """The most operations a second that this device and framework reach."""
    return {"flops": multiplication_rate(backend.multiplication(cfg), partial(backend.wait, cfg), seconds)}


def title(result: dict[str, Any]) -> str:
    """What was measured, on what."""
    return "{model}, {data}, {framework}, {precision}, {device}, batches of {batch_size}".format(**result)


def draw_bars(result: dict[str, Any], path: Path) -> None:
    """Draw a bar for each side's median and a dot for each round."""
    from src.kit.report import BLUE, FAINT, GREEN, INK, VERMILLION, new_figure, save_figure

    figure = new_figure(8.4, 2.8)
    axes = figure.add_subplot()
    for row, side in enumerate(result["sides"].values()):
        rate, rounds = side["samples_per_s"], side["rounds_samples_per_s"]
        axes.barh(row, rate, 0.6, color=(BLUE, VERMILLION, GREEN)[row])
        axes.plot(rounds, [row] * len(rounds), "o", color=INK, markersize=3)
        used = f"   MFU {side['mfu']:.1%}" if side["mfu"] else ""
        axes.text(max(rate, *rounds), row, f"  {rate:,.0f}{used}", va="center", color=FAINT)
    axes.set_yticks(range(len(SIDES)), list(SIDES.values()))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(max(side["rounds_samples_per_s"]) for side in result["sides"].values()))
    axes.set_xlabel("samples a second")
    axes.set_title(title(result), fontsize=10)
    save_figure(figure, path)
