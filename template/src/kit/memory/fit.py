"""Before training: refuse or change a batch that will not fit on the GPU (`trainer.on_oom`), or choose one.

`data.batch_size=auto` takes the largest batch that fits by the estimate, and tries it in at most three real steps.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from src.kit.config import UserError
from src.kit.errors import full_memory
from src.kit.hardware import MODULES, Hardware, batch_size, cuda_build, detect
from src.kit.memory.allocators import MIB
from src.kit.memory.estimate import (
    CONTEXT_MIB,
    CUBLAS_HANDLES,
    MARGIN,
    MARGIN_MIB,
    DataShape,
    Estimator,
    NotEstimated,
    cache_path,
    cached,
    cached_images,
    cublas_workspace,
    find_data_shape,
)
from src.kit.training import Experiment, load_benchmark, load_memory

ROOT = Path(__file__).resolve().parents[3]
CPU_BATCH = 32  # a CPU gains nothing from larger ones
MAX_TRIALS = 3
FRAGMENTED = 1.4  # reserved memory over the bound and what is the same throughout; at most 0.7 in 18 trainings
GROW, SHRINK = 1.25, 0.75
TRIAL = "import sys; from src.kit.memory.fit import run_trial; run_trial(sys.argv[1])"
OUT_OF_MEMORY = 3  # exit code of a trial


class TooLarge(UserError):
    """Training will not fit on the GPU."""


def fit_memory(
    cfg: DictConfig,
    hardware: Hardware,
    fits: Callable[[DictConfig], bool] | None = None,
    experiment: Experiment | None = None,
) -> tuple[DictConfig, str]:
    """The configuration to train with, and a sentence that says what was changed (empty if nothing was).

    Args:
        hardware: the machine; the smallest of its GPUs decides.
        fits: trains with a configuration and returns whether that fitted, for `data.batch_size=auto`.
        experiment: the experiment of `cfg`, if there is one already, so that its data are read once.

    Raises:
        TooLarge: training will not fit, and `trainer.on_oom` is refuse or no batch at all fits.
    """
    automatic = cfg.data.batch_size == "auto"
    memory = hardware.smallest_gpu_mib if cfg.trainer.accelerator in ("auto", "gpu") else 0
    if not memory or (cfg.trainer.on_oom == "ignore" and not automatic):
        return with_batch(cfg, default_batch_size(cfg, hardware)) if automatic else cfg, idle_build(cfg, hardware)
    smallest = min(hardware.gpus, key=lambda gpu: gpu.memory_mib)
    shape = find_data_shape(experiment or Experiment(cfg))
    if not automatic and clearly_fits(cfg, shape, memory):
        return cfg, ""
    try:
        estimator = Estimator(cfg, shape, smallest.compute_capability, memory)
    except NotEstimated as error:
        return (with_batch(cfg, default_batch_size(cfg, hardware)) if automatic else cfg), str(error)
    return choose_batch_size(cfg, estimator, memory, fits) if automatic else check_batch_size(cfg, estimator, memory)


def clearly_fits(cfg: DictConfig, shape: DataShape, memory: float) -> bool:
    """Whether a bound of what training takes fits, so that the estimate, seconds of CPU time, is not needed."""
    bound_bytes = getattr(load_memory(cfg.framework), "bound_bytes", None)
    if not bound_bytes or shape.objects:  # what a loss that looks for objects takes depends on them
        return False
    batch = int(cfg.data.batch_size)
    path = cache_path(cfg, shape, [batch]).with_suffix(".bound.npz")
    bound = int(cached(path, lambda: {"bytes": bound_bytes(cfg, shape, batch) or 0})["bytes"])
    if not bound:
        return False
    kept = cached_images(cfg, shape, memory) + CUBLAS_HANDLES * cublas_workspace(cfg)
    reserved = FRAGMENTED * (bound + kept) / MIB
    return bool((1 + MARGIN) * reserved + MARGIN_MIB + CONTEXT_MIB[cfg.framework] <= memory)


def idle_build(cfg: DictConfig, hardware: Hardware) -> str:
    """A sentence for a GPU build that finds no GPU and so would train on the CPU without a word."""
    cuda = cuda_build(MODULES[cfg.framework])
    if not cuda or cfg.trainer.accelerator != "auto" or hardware.gpus:
        return ""
    return (
        f"Training on the CPU: {MODULES[cfg.framework]} is built for CUDA {cuda}, but no GPU is visible. Containers"
        " need --gpus all or the service train-gpu; python scripts/doctor.py says what else is missing."
    )


def fit_to_machine(experiment: Experiment) -> tuple[DictConfig, str]:
    """`fit_memory` for this machine; several GPUs have a process each, and only one process may try what fits."""
    fits = fits_gpu if experiment.cfg.trainer.devices == 1 else None
    return fit_memory(experiment.cfg, detect(), fits, experiment)


def check_batch_size(cfg: DictConfig, estimator: Estimator, memory: float) -> tuple[DictConfig, str]:
    """Accept the configured batch, or do what `trainer.on_oom` says; `memory` is the GPU's MiB."""
    if isinstance(cfg.data.batch_size, ListConfig):
        return cfg, "GPUs with batches of their own size are not checked: estimate_memory.py tells what each needs."
    estimate = estimator.at(cfg.data.batch_size)
    if estimate.total <= memory:
        tight = f"Training needs about {gib(estimate.total)} of the GPU's {gib(memory)}: it may run out of memory."
        return cfg, tight if estimate.needed > memory else ""
    batch, parts = same_effective_batch(cfg, estimator.largest(memory, cfg.data.batch_size))
    problem = (
        f"data.batch_size={cfg.data.batch_size} needs {gib(estimate.total)} of GPU memory and the GPU has {gib(memory)}"
    )
    keys = f"data.batch_size={batch} trainer.accumulate_grad_batches={parts}"
    if batch and cfg.trainer.on_oom == "adapt":
        return with_batch(cfg, batch, parts), f"{problem}: training goes on with {keys}."
    half = suggest_half_precision(cfg, memory)
    if not batch:
        raise TooLarge(f"{problem}, too little for any batch: use a smaller model or data.image_size{half}.")
    raise TooLarge(f"{problem}: use {keys}, the same effective batch{half}, or trainer.on_oom=adapt.")


def choose_batch_size(
    cfg: DictConfig, estimator: Estimator, memory: float, fits: Callable[[DictConfig], bool] | None
) -> tuple[DictConfig, str]:
    """The configuration with the largest batch that fits, by estimate and, if `fits` is given, by trial."""
    most = max(1, estimator.shape.images // 2)  # an epoch of one batch teaches little
    guess = round_batch(estimator.largest(memory, most))
    if not guess:
        raise TooLarge(f"Not even one sample fits {gib(memory)} of GPU memory: use a smaller model or data.image_size.")
    batch = find_batch(guess, lambda size: fits(with_batch(cfg, size)), most) if fits else guess
    return with_batch(cfg, batch), f"data.batch_size=auto: {batch}, of an estimated {guess}."


def find_batch(guess: int, fits: Callable[[int], bool], most: int) -> int:
    """Try the estimated batch, then one or two larger ones, or smaller ones.

    Args:
        guess: the largest batch by estimate.
        fits: trains a step with a batch size and returns whether it fitted on the GPU.
        most: upper bound of the result.

    Raises:
        UserError: none of three batches fits.
    """
    batch, best = guess, 0
    for _ in range(MAX_TRIALS):
        if fits(batch):
            if batch < guess:  # a larger one has failed
                return batch
            best, batch = batch, min(most, round_batch(max(batch + 1, round(batch * GROW))))
        elif best or batch == 1:
            break
        else:
            batch = round_batch(min(batch - 1, round(batch * SHRINK)))
        if batch == best:
            break
    if not best:
        raise UserError(
            f"Training ran out of GPU memory at every batch size that was tried, from {guess} down: stop other "
            "programs that use the GPU, or set data.batch_size to a small number."
        )
    return best


def round_batch(batch: int) -> int:
    """Round down to a multiple of 8 from 16 on, which tensor cores prefer, and of 64 from 512 on."""
    step = 64 if batch >= 512 else 8 if batch >= 16 else 1
    return batch // step * step


def with_batch(cfg: DictConfig, batch: int, parts: int | None = None) -> DictConfig:
    """The configuration with another batch size and, if given, gradients accumulated over `parts` batches."""
    changed = OmegaConf.merge(cfg, {"data": {"batch_size": batch}})
    if parts:
        changed.trainer.accumulate_grad_batches = parts
    OmegaConf.set_struct(changed, True)
    assert isinstance(changed, DictConfig)
    return changed


def same_effective_batch(cfg: DictConfig, largest: int) -> tuple[int, int]:
    """The largest batch up to `largest` that divides the effective batch, and the quotient; (0, 0) if none does."""
    effective = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    batch = next((size for size in range(largest, 0, -1) if effective % size == 0), 0)
    return batch, effective // batch if batch else 0


def suggest_half_precision(cfg: DictConfig, memory: float) -> str:
    """Advice to train in half precision, if the batch then fits."""
    if cfg.trainer.precision != "32-true":
        return ""
    merged = OmegaConf.merge(cfg, {"trainer": {"precision": "bf16-mixed"}})
    assert isinstance(merged, DictConfig)
    fits = Estimator(merged, memory_mib=memory).at(cfg.data.batch_size).needed <= memory
    return ", or trainer.precision=bf16-mixed" if fits else ""


def default_batch_size(cfg: DictConfig, hardware: Hardware) -> int:
    """A batch size without an estimate."""
    return CPU_BATCH if cfg.trainer.accelerator == "cpu" else int(batch_size(hardware)[0])


def gib(mib: float) -> str:
    """12288 -> "12.0 GiB"."""
    return f"{mib / 1024:.1f} GiB"


def fits_gpu(cfg: DictConfig) -> bool:
    """Whether two training steps fit on the GPU; they run in a process of their own, which may run out of memory.

    Raises:
        UserError: they failed for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(OmegaConf.to_yaml(cfg), "utf-8")
        command = [sys.executable, "-c", TRIAL, str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in (0, OUT_OF_MEMORY):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"Trying data.batch_size={cfg.data.batch_size} failed: {reason}")
    return done.returncode == 0


def run_trial(path: str) -> None:
    """Train two steps, the second of which has the optimizer's state; exit with `OUT_OF_MEMORY` if they don't fit."""
    from src.kit.catalog import build_dataset

    cfg = OmegaConf.load(path)
    backend = load_benchmark(cfg.framework)
    try:
        trainer = backend.Trainer(cfg, build_dataset(cfg, "train"))
        batch = trainer.synthetic()
        for _ in range(2):
            trainer.step(batch)
        trainer.wait()
    except (MemoryError, RuntimeError) as error:
        if not full_memory(error):
            raise
        sys.exit(OUT_OF_MEMORY)
