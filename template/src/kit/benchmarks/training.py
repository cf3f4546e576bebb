"""How fast a configured training is, beside a loop written by hand and one without data, in rounds that alternate."""

import gc
import math
import os
import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.benchmarks.data import WARM_UP, Clock, alternate, multiplying
from src.kit.catalog import build_dataset
from src.kit.config import UserError
from src.kit.hardware import Utilisation, peak_flops, peak_mib
from src.kit.run import Run
from src.kit.training import backends as trainers
from src.kit.training import build_loader

os.environ.setdefault("GLOG_minloglevel", "2")  # before Paddle loads: it warns of its own count of operations
PILOT = 5  # steps that tell how many fill the time
Row = dict[str, Any]


def measure(cfg: DictConfig, backend: Any, seconds: float, rounds: int) -> Row:
    """Steps, operations and memory of our trainer, of the loop by hand on the same data, and on synthetic data.

    Args:
        backend: `src/kit/lightning/benchmark.py` or `paddle_benchmark.py`.
        seconds: of each side in each round, about.

    Raises:
        UserError: an epoch of one batch, and whatever the training itself would say.
    """
    split = build_dataset(cfg, "train")
    loader, val_loader = build_loader(cfg, split, "train"), build_loader(cfg, build_dataset(cfg, "val"), "val")
    if len(loader) < 2:
        raise UserError("The benchmark needs two batches an epoch: make data.batch_size smaller.")
    try_out = shorten(cfg, len(loader), len(val_loader), PILOT)
    pilot = turn(backend, train, try_out)
    memory_mib = peak_mib()  # before any other side takes some
    val_steps = pilot["val_s"] / try_out.trainer.limit_val_batches * len(val_loader) / pilot["step_s"]
    short = shorten(cfg, len(loader), len(val_loader), math.ceil(seconds / pilot["step_s"]), val_steps)
    gpu, flops = backend.gpu_name(cfg), backend.Trainer(cfg, split).flops()
    known = peak_flops(gpu, cfg.trainer.precision)
    sides: dict[str, Callable[[], Row]] = {
        "ours": partial(turn, backend, train, short),
        "by_hand": partial(turn, backend, partial(loop, backend, split), short),
        "synthetic": partial(turn, backend, partial(loop, backend, split, synthetic=True), short),
    }
    if not known:
        sides["product"] = partial(multiply, backend, cfg, seconds / 4)
    found = alternate(sides, rounds)
    peaks = np.array([known or row["flops"] for row in found.pop("product", [{}] * rounds)])
    val_s = median(row["val_s"] for row in found["ours"]) * len(val_loader) / short.trainer.limit_val_batches
    sizes = {"steps": len(loader), "samples": min(loader.samples, len(loader) * cfg.data.batch_size)}
    speeds = {name: np.array([1 / row["step_s"] for row in rows]) for name, rows in found.items()}
    table = {}
    for name, rows in found.items():
        step_s = 1 / float(np.median(speeds[name]))
        table[name] = {
            "samples_per_s": sizes["samples"] / sizes["steps"] / step_s,
            "step_ms": 1000 * step_s,
            "epoch_s": step_s * sizes["steps"],
            "mfu": float(np.median(flops * speeds[name] / peaks)) if flops else None,
            "rounds_samples_per_s": (sizes["samples"] / sizes["steps"] * speeds[name]).tolist(),
            **{key: middle([row.get(key) for row in rows]) for key in ("gpu_busy", "allocated_mib", "reserved_mib")},
        }
    ratios = {f"ours / {name}": float(np.median(speeds["ours"] / speeds[name])) for name in ("by_hand", "synthetic")}
    peak = {"peak_flops": float(np.median(peaks)), "peak_of": "datasheet" if known else "measured matrix product"}
    rest = {"step_flops": flops, **peak, "memory_mib": memory_mib, "validation_s": val_s}
    return {"device": gpu or "CPU", **sizes, **rest, "sides": table, "ratios": ratios}


def middle(values: list[float | None]) -> float | None:
    """The median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def shorten(cfg: DictConfig, batches: int, val_batches: int, steps: int, val_steps: float = 0.0) -> DictConfig:
    """The training with the time of `steps`: a part of an epoch and as large a part of the validation, or epochs.

    `val_steps` is the time of a validation, in steps.
    """
    short, train_batches = cfg.copy(), min(batches, WARM_UP + steps)
    short.trainer.limit_train_batches = train_batches
    short.trainer.limit_val_batches = math.ceil(val_batches * train_batches / batches)
    short.trainer.max_epochs = 1 if train_batches < batches else 1 + math.ceil(steps / (batches + val_steps))
    return short


def turn(backend: Any, side: Callable[[DictConfig, Clock], None], cfg: DictConfig) -> Row:
    """One turn of a side: the time of a step, and what the GPU did."""
    gc.unfreeze()  # a session freezes all there is, and what is left of the one before would stay for good
    gc.collect()
    backend.forget_memory(cfg)
    clock = Clock(partial(backend.wait, cfg))
    with Utilisation(asked=bool(backend.gpu_name(cfg))) as gpu:
        side(cfg, clock)
    step_s = sum(end - begin for begin, end in clock.windows) / clock.steps
    val_s = median(clock.validations) if clock.validations else None
    return {"step_s": step_s, "val_s": val_s, "gpu_busy": gpu.mean(clock.windows), **backend.peak_memory(cfg)}


def train(cfg: DictConfig, clock: Clock) -> None:
    """Our trainer, as scripts/train.py calls it; its run folder does not outlive it."""
    with tempfile.TemporaryDirectory() as folder:
        own = cfg.copy()
        own.output_dir = folder
        with Run(own) as run:
            run.progress = clock
            trainers.load(cfg.framework).fit(own, run)


def loop(backend: Any, split: Any, cfg: DictConfig, clock: Clock, synthetic: bool = False) -> None:
    """Forward pass, backward pass and optimizer on the same batches, or on one that stays on the device."""
    trainer = backend.Trainer(cfg, split)
    clock.start(cfg.trainer.max_epochs)
    batches: Any = [trainer.synthetic()] * cfg.trainer.limit_train_batches if synthetic else trainer.real()
    for epoch in range(cfg.trainer.max_epochs):
        if not synthetic:
            batches.loader.set_epoch(epoch)
        for number, batch in enumerate(batches, 1):
            trainer.step(batch)
            clock.step(epoch, number, len(batches))


def multiply(backend: Any, cfg: DictConfig, seconds: float) -> Row:
    """What this device and framework can do at most, in operations a second."""
    return {"flops": multiplying(backend.multiplication(cfg), partial(backend.wait, cfg), seconds)}
