"""Before training: refuse or change a batch that will not fit the GPU (`trainer.on_oom`), or choose one.

`data.batch_size=auto` takes the largest batch that fits by the estimate, and tries it in at most three real steps.
"""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.hardware import Hardware, batch_size
from src.kit.memory.estimate import Estimator, NotEstimated
from src.kit.memory.finder import find_batch, round_batch
from src.kit.memory.shape import Shape, find_shape

CPU_BATCH = 32  # a processor gains nothing from larger ones


def fit_memory(
    cfg: DictConfig, hardware: Hardware, probe: Callable[[DictConfig], bool] | None = None, shape: Shape | None = None
) -> tuple[DictConfig, str]:
    """The configuration to train with, and a sentence on what was changed, empty where nothing was.

    Args:
        hardware: the machine; the smallest of its GPUs decides.
        probe: trains with the configuration it is given and says whether that fitted, for `data.batch_size=auto`.
        shape: of the data; None looks it up.

    Raises:
        UserError: training will not fit, and `trainer.on_oom` is refuse or no batch at all fits.
    """
    automatic = cfg.data.batch_size == "auto"
    memory = hardware.smallest_gpu_mib if cfg.trainer.accelerator in ("auto", "gpu") else 0
    if not memory or (cfg.trainer.on_oom == "ignore" and not automatic):
        return (with_batch(cfg, fallback(cfg, hardware)), "") if automatic else (cfg, "")
    shape = shape or find_shape(cfg)
    smallest = min(hardware.gpus, key=lambda gpu: gpu.memory_mib)
    try:
        estimator = Estimator(cfg, shape, smallest.compute_capability, memory)
    except NotEstimated as error:
        return (with_batch(cfg, fallback(cfg, hardware)) if automatic else cfg), str(error)
    if automatic:
        return choose(cfg, estimator, memory, probe)
    found = estimator.at(cfg.data.batch_size)
    need = found.total
    if need <= memory:
        tight = f"Training needs about {gib(need)} of the GPU's {gib(memory)}: it may run out of memory."
        return cfg, tight if found.needed > memory else ""
    batch, parts = same_effective(cfg, estimator.largest(memory, cfg.data.batch_size))
    said = f"data.batch_size={cfg.data.batch_size} needs {gib(need)} of GPU memory and there is {gib(memory)}"
    if not batch:
        raise UserError(f"{said}, too little for any batch: use a smaller model or data.image_size{half(cfg, memory)}.")
    keys = f"data.batch_size={batch} trainer.accumulate_grad_batches={parts}"
    if cfg.trainer.on_oom == "adapt":
        return with_batch(cfg, batch, parts), f"{said}: training goes on with {keys}."
    raise UserError(f"{said}: use {keys}, the same effective batch{half(cfg, memory)}, or trainer.on_oom=adapt.")


def choose(
    cfg: DictConfig, estimator: Estimator, memory: float, probe: Callable[[DictConfig], bool] | None
) -> tuple[DictConfig, str]:
    """The largest batch by estimate and, where there is a probe, by trial."""
    most = max(1, estimator.shape.images // 2)  # an epoch of one batch teaches little
    guess = round_batch(estimator.largest(memory, most))
    if not guess:
        raise UserError(
            f"Not even one sample fits {gib(memory)} of GPU memory: use a smaller model or data.image_size."
        )
    batch = find_batch(guess, lambda size: probe(with_batch(cfg, size)), most) if probe else guess
    return with_batch(cfg, batch), f"data.batch_size=auto: {batch}, of an estimated {guess}."


def with_batch(cfg: DictConfig, batch: int, parts: int | None = None) -> DictConfig:
    """The configuration with another batch size, and the gradients of `parts` batches added up."""
    changed = OmegaConf.merge(cfg, {"data": {"batch_size": batch}})
    if parts:
        changed.trainer.accumulate_grad_batches = parts
    OmegaConf.set_struct(changed, True)
    assert isinstance(changed, DictConfig)
    return changed


def same_effective(cfg: DictConfig, largest: int) -> tuple[int, int]:
    """The largest batch up to `largest` that divides the effective one, and how many make it up; (0, 0) where none."""
    effective = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
    batch = next((size for size in range(largest, 0, -1) if effective % size == 0), 0)
    return batch, effective // batch if batch else 0


def half(cfg: DictConfig, memory: float) -> str:
    """Advice to compute in half precision, where that makes room enough."""
    if cfg.trainer.precision != "32-true":
        return ""
    merged = OmegaConf.merge(cfg, {"trainer": {"precision": "bf16-mixed"}})
    assert isinstance(merged, DictConfig)
    fits = Estimator(merged, memory_mib=memory).at(cfg.data.batch_size).needed <= memory
    return ", or trainer.precision=bf16-mixed" if fits else ""


def fallback(cfg: DictConfig, hardware: Hardware) -> int:
    """A batch size without an estimate."""
    return CPU_BATCH if cfg.trainer.accelerator == "cpu" else int(batch_size(hardware)[0])


def gib(mib: float) -> str:
    """12288 -> "12.0 GiB"."""
    return f"{mib / 1024:.1f} GiB"
