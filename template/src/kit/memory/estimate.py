"""How much GPU memory a training will take, and the largest batch that fits each common GPU.

Exact for parameters, gradients, optimizer state and what autograd keeps: the template's tests compare them with
the frameworks' CPU allocators. Scratch of cuDNN and cuBLAS follows published rules; the CUDA context was measured with
PyTorch on one GPU, Paddle's was not; benchmarks/gpu_memory.py measures all of it."""

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.augment import farthest_shift
from src.kit.config import UserError
from src.kit.hardware import detect
from src.kit.loading import DEVICE_SHARE, largest_batch
from src.kit.memory.allocators import MIB, Peak, ScaledTrace, Trace, extrapolate_peak, simulate_allocator
from src.kit.ranks import find_place
from src.kit.storage import replace_file, sort_paths
from src.kit.training import Experiment, find_checkpoint, load_memory, load_task

# GB on the box -> MiB that nvidia-smi reports: RTX 4060, 4070, 4080, 4090, A100, H100, H200
GPUS = {8: 8188, 12: 12282, 16: 16376, 24: 24564, 40: 40536, 80: 81559, 141: 143771}
ROOT = Path(__file__).resolve().parents[3]
KEPT = 100  # files of traces, of up to 0.1 MB, and of bounds
# keys that no network, loss or optimizer sees
UNSEEN = {"seed", "name", "output_dir", "log_every_n_steps", "tracker", "scheduler", "batch_size", "root", "cache"}
PREFETCHED = {"lightning": 0, "paddle": 2}  # batches on the GPU besides the one in training
PARTS = {"zero_1": "The optimizer's state is", "zero_2": "Gradients and optimizer state are"}
MAX_BATCH = 1 << 16
# Traced batches. PyTorch's batch normalisation refuses a single value; what Paddle must compute takes its time.
BATCHES = {"lightning": (2, 4), "paddle": (1, 2)}
LARGER_BATCHES = (4, 8)  # where only the peak is on a line: there activations outweigh everything else
# Of the reserved memory. None of 22 trainings on an H200 took more; of 101 that others measured with an unknown setup
# (benchmarks/gpu_memory_timm.py), 10 did.
MARGIN = 0.18
MARGIN_MIB = 64  # at least: three of the allocator's blocks of 20 MiB, which small networks take or not
# PyTorch, aten/src/ATen/cuda/CublasHandlePool.cpp: ":4096:2:16:8" before Hopper, 32 MiB on Hopper and Blackwell;
# Lightning sets CUBLAS_WORKSPACE_CONFIG=":4096:8" for deterministic training. One handle for the forward pass and one
# for autograd's own thread, from their first products on, and cublasLt's workspace is the same memory.
CUBLAS = {"before Hopper": 2 * 4096 * 1024 + 8 * 16 * 1024, "Hopper": 32 * MIB}
CUBLAS_HANDLES = 2
# A CUDA context with the framework's kernels loaded, as they are when first used. PyTorch's took 758 to 762 MiB on an
# H200 (torch 2.11, CUDA 13) for most networks, 632 to 638 for two. GPUs with fewer multiprocessors take less. Paddle's
# has not been measured; users report 250 to 600 MiB of CUDA 11 to 13.
CONTEXT_MIB = {"lightning": 762, "paddle": 600}
# cuDNN's tensor-core kernels want channels last: given channels first, they copy input, weights and output to scratch.
# For 47 networks of timm that others measured (benchmarks/gpu_memory_timm.py), half a copy to one fits best; of 22
# trainings on an H200 one copy, which some forward passes do without.
LAYOUT_COPIES = 1.0


@dataclass(frozen=True)
class DataShape:
    """Number of classes, channels, pixels a side, and training (where unknown: all) images of a data set.

    `objects` is how many objects each image is assumed to have (0: the task has none), and `arguments` are further
    arguments of the network.
    """

    classes: int
    channels: int
    image_size: int
    images: int
    objects: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def class_counts(self) -> np.ndarray:
        """Equally many samples of each class, int64 (K,): a loss's weights take the same memory whatever they are."""
        return np.full(self.classes, max(1, self.images // self.classes), np.int64)


def find_data_shape(experiment: Experiment) -> DataShape:
    """The shape of an experiment's data: from its published description, or from its files where they decide.

    Raises:
        UserError: files are needed and are missing.
    """
    from src.kit.catalog import find_spec

    cfg, task = experiment.cfg, experiment.task
    size = int(cfg.data.image_size) if "image_size" in cfg.data else 1
    if cfg.data.sizes:
        size = max(size, *cfg.data.sizes)
    objects = task.example_objects(cfg)
    try:
        spec = find_spec(cfg.data.name)
    except ValueError:  # a mixture, say: no published data set
        spec = None
    if "mean" in cfg.data and spec and spec.classes and spec.splits and spec.splits.get("train"):
        classes = (len(cfg.data.classes) if cfg.data.classes else spec.classes) + task.extra_classes
        return DataShape(classes, len(cfg.data.mean), size, spec.splits["train"], objects)
    images = len(experiment.split("train")) + len(experiment.split("val"))
    channels = experiment.input_shape[2]
    return DataShape(len(experiment.classes), channels, size, images, objects, experiment.network_arguments)


def example_targets(task: str, shape: DataShape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays that `task` passes to a loss besides the outputs: made up, `batch` equal rows."""
    return load_task(task).example_targets(shape, batch)


class NotEstimated(UserError):
    """The network's memory depends on values, so that only running it can tell."""


@dataclass(frozen=True)
class Estimate:
    """MiB of one GPU at the moment when the framework's tensors take the most.

    `allocated` counts the tensors and corresponds to `max_memory_allocated`; `reserved` is what the allocator took from
    the driver for them; `total` is the process as `nvidia-smi` shows it; `needed` is the total with a margin.
    """

    batch_size: int
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    workspace: float
    data: float
    fragmentation: float
    context: float
    allocated: float
    reserved: float
    total: float
    needed: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


class Estimator:
    """Estimates the configured training at any batch size from two traces, which are made once."""

    def __init__(
        self,
        cfg: DictConfig,
        shape: DataShape | None = None,
        capability: str | None = None,
        memory_mib: float = GPUS[8],
    ) -> None:
        """Trace the training.

        Args:
            shape: of the data; None looks it up.
            capability: the GPU's compute capability, such as "8.6"; None assumes the one that takes the most.
            memory_mib: the GPU's memory, which decides whether images are cached there.

        Raises:
            NotEstimated: the network's memory depends on values, so that only running it can tell.
        """
        self.cfg, self.shape = cfg, shape or find_data_shape(Experiment(cfg))
        try:
            batches = BATCHES[cfg.framework]
            self.scaled = ScaledTrace(batches, traces_of_rank(cfg, self.shape, batches))
            if not self.scaled.same_operations:
                traces = [self.scaled.traces[1], *traces_of_rank(cfg, self.shape, LARGER_BATCHES[1:])]
                self.scaled = ScaledTrace(LARGER_BATCHES, traces)
        except UserError:
            raise
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:  # it looks at the pixels
            reason = " ".join(str(error).split())[:200]
            raise NotEstimated(f"The GPU memory of model={cfg.model.name} cannot be estimated: {reason}.") from error
        self.workspace = cublas_workspace(cfg, capability)
        self.cached = cached_images(cfg, self.shape, memory_mib)
        self.copies = average_bytes(cfg, self.scaled.traces[0]) + teacher_bytes(cfg)
        images = 4 * self.shape.channels * self.shape.image_size**2
        self.sample_bytes = images + sum(array.nbytes for array in example_targets(cfg.task, self.shape, 1))
        self.estimates: dict[int, Estimate] = {}

    @property
    def notes(self) -> list[str]:
        """The assumptions behind the estimate, one sentence each."""
        notes = [f"Each image is assumed to have {self.shape.objects} objects."] * bool(self.shape.objects)
        if not self.scaled.same_operations:
            low, high = LARGER_BATCHES
            notes += [f"Batches of {low} and {high} were traced; others are assumed to lie on a straight line."]
        if divides(self.cfg):
            ranks, strategy = count_ranks(self.cfg), self.cfg.trainer.strategy
            kept = " and kept in RAM" * (strategy == "fsdp_offload")
            parts = PARTS.get(strategy, "Weights, gradients and optimizer state are")
            notes += [f"{parts} divided among {ranks} devices{kept}."]
        if self.cfg.framework == "paddle" and self.cfg.loss.name == "network":
            notes += ["Activations were measured in 32 bits on this CPU; half precision takes less."]
        return notes

    def at(self, batch: int) -> Estimate:
        """The estimate at a batch size."""
        if batch not in self.estimates:
            if self.scaled.same_operations:
                peak = self.find_peak(self.scaled.at(batch), batch)
            else:
                ends = [self.find_peak(*pair) for pair in zip(self.scaled.traces, LARGER_BATCHES, strict=True)]
                peak = extrapolate_peak(LARGER_BATCHES, ends, batch)
            self.estimates[batch] = summarise_peak(batch, peak, CONTEXT_MIB[self.cfg.framework])
        return self.estimates[batch]

    def find_peak(self, trace: Trace, batch: int) -> Peak:
        """The peak of a trace made with `batch`, on top of what stays on the GPU throughout."""
        prefetched = PREFETCHED[self.cfg.framework] * batch * self.sample_bytes
        blocks = [("data", self.cached), ("parameters", self.copies), ("data", prefetched)]
        trace = prepend_blocks(fill_handles(trace, self.workspace), blocks)
        return simulate_allocator(trace, self.cfg.framework)

    def largest(self, memory_mib: float, most: int = MAX_BATCH) -> int:
        """The largest batch that fits, to within 3 %; 0 if none does."""
        low, high = 0, 1
        while high <= most and self.at(high).needed <= memory_mib:
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > max(1, low // 32):
            middle = (low + high) // 2
            low, high = (middle, high) if self.at(middle).needed <= memory_mib else (low, middle)
        return low


def divides(cfg: DictConfig) -> bool:
    """Whether each device has a part of each weight, or of the optimizer's state."""
    return str(cfg.trainer.strategy).startswith(("fsdp", "zero"))


def keeps_buckets(cfg: DictConfig) -> bool:
    """Whether several processes have all gradients and send them in buckets: PyTorch's and Paddle's data parallel."""
    return count_ranks(cfg) > 1 and cfg.trainer.strategy in ("auto", "ddp", "zero_1")


def count_ranks(cfg: DictConfig) -> int:
    """The processes that will train: the launcher's, or those that the keys ask for."""
    if place := find_place():
        return place.ranks
    devices = cfg.trainer.devices
    if devices == "auto":
        devices = max(1, len(detect().gpus))
    return int(cfg.trainer.num_nodes) * (devices if isinstance(devices, int) else len(devices))


def traces_of_rank(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """`trace_once` for one of the processes that divide weights or state among them, if they do."""
    refuse_strategy(cfg)
    traces = trace_once(cfg, shape, batches)
    return load_memory(cfg.framework).divide_traces(cfg, shape, traces, count_ranks(cfg)) if divides(cfg) else traces


def refuse_strategy(cfg: DictConfig) -> None:
    """Refuse to divide what the framework cannot.

    Raises:
        UserError: it was asked for.
    """
    strategy = str(cfg.trainer.strategy)
    if strategy == "fsdp_offload" and cfg.framework == "paddle":
        raise UserError("Paddle has no trainer.strategy=fsdp_offload: use fsdp, which keeps each part on its GPU.")
    if strategy.startswith("zero") and cfg.framework == "lightning":
        raise UserError(
            f"Lightning has no trainer.strategy={strategy}: use fsdp, which divides the weights too, auto or ddp."
        )


def trace_once(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two steps for each batch size, or read what the same configuration, code and versions gave before."""

    def trace() -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for batch, found in zip(batches, load_memory(cfg.framework).trace_steps(cfg, shape, batches), strict=True):
            arrays |= {f"events{batch}": found.events, f"kinds{batch}": [*found.kinds.values()]}
        return arrays

    saved = cached(cache_path(cfg, shape, batches), trace)
    rows = [(saved[f"events{batch}"].tolist(), saved[f"kinds{batch}"].tolist()) for batch in batches]
    return [Trace(tuple(map(tuple, events)), dict(enumerate(kinds))) for events, kinds in rows]


def cached(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays in a file of the cache, which `compute` gives if there is none or it is damaged."""
    with suppress(OSError, ValueError, EOFError, BadZipFile, zlib.error):
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
        os.utime(path)  # the files used last are kept
        return arrays
    arrays = {name: np.asarray(rows) for name, rows in compute().items()}
    with suppress(OSError):  # a full disk, or a folder that may not be written to
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path, wait=False) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        for old in sorted(path.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return arrays


def cache_path(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> Path:
    """The file of the traces with these batches in the user's cache folder, named by a digest of all that decides them.

    That is the configuration but for what no network sees, whether there are buckets, every source file of the project,
    and the names and versions of all installed packages.
    """
    keys: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key not in UNSEEN]))
    keys["data"] = {key: value for key, value in keys["data"].items() if key not in UNSEEN}
    packages = sorted(path.name for folder in sys.path for path in Path(folder).glob("*.dist-info"))
    described = [keys, keeps_buckets(cfg), asdict(shape), list(batches), sys.version, packages]
    digest = hashlib.sha256(json.dumps(described, default=str, sort_keys=True).encode())
    for path in sort_paths((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    home = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "gpu-memory-traces" / f"{digest.hexdigest()}.npz"


def estimate(cfg: DictConfig, shape: DataShape | None = None, capability: str | None = None) -> Estimate:
    """The memory that training `cfg` takes on each GPU.

    Raises:
        UserError: an unknown model, or data whose files decide what the network looks like and are missing.
    """
    return Estimator(cfg, shape, capability).at(largest_batch(cfg))


def cached_images(cfg: DictConfig, shape: DataShape, memory_mib: float) -> int:
    """Bytes of the images that `data.cache` keeps on a GPU of this size: uint8, with the margin that shifts need."""
    keys = cfg.data
    if cfg.task != "classification":  # other data are cached in RAM
        return 0
    movable = keys.augment in ("none", "basic") and not (keys.mixup_alpha or keys.cutmix_alpha or keys.sizes)
    side = shape.image_size + (2 * farthest_shift(keys.shift, shape.image_size) if keys.augment == "basic" else 0)
    size = shape.images * shape.channels * side * side
    fits = keys.cache == "auto" and movable and size <= DEVICE_SHARE * memory_mib * MIB
    return size if keys.cache == "device" or fits else 0


def average_bytes(cfg: DictConfig, trace: Trace) -> int:
    """Bytes of the average of the weights that `trainer.ema` or `trainer.swa` keeps."""
    if not cfg.trainer.ema and cfg.trainer.swa is None:
        return 0
    return sum(size for number, size in trace.events if size > 0 and trace.kinds[number] == "parameters")


def teacher_bytes(cfg: DictConfig) -> int:
    """Bytes of the weights of `trainer.distill.teacher`."""
    teacher = cfg.trainer.distill.teacher
    return (find_checkpoint(Path(teacher), "best") / "model.safetensors").stat().st_size if teacher else 0


def convolution_workspace(sizes: Sequence[int], groups: int) -> int:
    """Scratch bytes of one convolution whose inputs and outputs take `sizes` bytes; grouped ones need none."""
    return int(LAYOUT_COPIES * sum(sizes)) if groups == 1 else 0


def cublas_workspace(cfg: DictConfig, capability: str | None = None) -> int:
    """Bytes of a cuBLAS handle's workspace on a GPU of this compute capability; None counts as the largest."""
    if cfg.framework == "paddle":  # the library allocates them itself, outside Paddle's allocator
        return 0
    hopper = capability is None or float(capability) >= 9.0
    return CUBLAS["Hopper" if hopper or cfg.deterministic else "before Hopper"]


def fill_handles(trace: Trace, size: int) -> Trace:
    """The trace with cuBLAS's workspaces of `size` bytes, which are allocated in the midst of the first step."""
    events = tuple((block, size if trace.kinds[block] == "handle" else own) for block, own in trace.events)
    return Trace(events, {block: "workspace" if kind == "handle" else kind for block, kind in trace.kinds.items()})


def prepend_blocks(trace: Trace, blocks: list[tuple[str, int]]) -> Trace:
    """The trace after allocating `blocks` (kind, bytes), which are never freed."""
    first = len(trace.kinds)
    events = tuple((first + number, size) for number, (_, size) in enumerate(blocks))
    kinds = {first + number: kind for number, (kind, _) in enumerate(blocks)}
    return Trace(events + trace.events, {**trace.kinds, **kinds})


def summarise_peak(batch: int, peak: Peak, context: float) -> Estimate:
    """Convert a peak's bytes to an estimate in MiB."""
    names = ("parameters", "gradients", "optimizer", "activations", "workspace", "data")
    kinds = {name: peak.kinds.get(name, 0) / MIB for name in names}
    allocated, reserved = peak.allocated / MIB, peak.reserved / MIB
    total = reserved + context
    sums = {
        "allocated": allocated,
        "reserved": reserved,
        "total": total,
        "needed": total + max(MARGIN * reserved, MARGIN_MIB),
    }
    return Estimate(batch, **kinds, fragmentation=reserved - allocated, context=context, **sums)
