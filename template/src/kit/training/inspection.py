"""Look inside a training: the gradients, weights and activations of each layer, memory that grows, the GPU's state."""

import contextlib
import gc
import importlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from src.kit.config import UserError
from src.kit.hardware import resident_bytes
from src.kit.run import Run
from src.kit.storage import read_layers, write_rows

SETTLED = 1000  # steps after which a process has what it needs, if its first epoch takes longer
ARRAYS = ("ndarray", "Tensor", "Parameter", "EagerParamBase")  # classes, which know their size


class Layers(Protocol):
    """What is measured of a network, in `src/kit/<framework>/inspection.py`; P is the number of trained tensors."""

    names: Sequence[str]  # of the trained tensors, such as "stem.conv.weight", in the network's order
    on_cpu: bool  # where to look at a value waits for nothing

    def gradient_norms(self) -> Any:
        """Euclidean norm of each gradient: a tensor float32 (P,) on the device."""
        ...

    def gradients(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Mean, largest absolute value and share of NaN and Inf of each gradient (P, 3), and samples of each."""
        ...

    def weights(self) -> list[np.ndarray]:
        """The same sample of each trained tensor at every call."""
        ...

    def watch(self) -> None:
        """Begin to record the layers' outputs."""
        ...

    def activations(self) -> dict[str, tuple[float, float]]:
        """Stop recording; layer -> mean and share of zeros of its output for the first samples, as data pass them."""
        ...

    def first_not_finite(self, forward: Callable[[], Any]) -> str:
        """The layer whose weights or output are the first that are not finite in a forward pass, or ""."""
        ...

    def fetch(self, tensors: Sequence[Any]) -> np.ndarray:
        """Tensors of one shape as one array (N, ...)."""
        ...

    def device_bytes(self) -> int:
        """Memory that tensors take on the GPU."""
        ...


class Inspector:
    """Follows one training: a norm of each gradient at every step, all the rest every n steps (`trainer.inspect`).

    Rows of `layers.jsonl` in the run folder: step, and for each layer its grad_norm, grad_mean, grad_max,
    grad_not_finite (a share), change (of the weights by this step, relative to them), activation_mean and
    activation_zeros (a share), as far as it has them.
    """

    def __init__(self, keys: Mapping[str, Any], run: Run, layers: Layers) -> None:
        """`keys` are those of `trainer.inspect`."""
        self.run, self.layers, self.every = run, layers, keys["every_n_steps"]
        self.memory = MemoryWatch(keys["leak_mib"], layers.device_bytes)
        self.gpu = GpuMonitor(asked=not layers.on_cpu)
        self.norms: list[tuple[int, Any]] = []  # (step, norms) since they were fetched
        self.row: dict[str, dict[str, float]] = {}
        self.due, self.written = False, False

    def start_step(self, step: int) -> None:
        """Prepare for the batch that completes optimizer step `step`, counted from 1."""
        self.due = bool(self.every) and step % self.every == 0
        if self.due:
            self.layers.watch()

    def check(self, loss: Any, forward: Callable[[], Any]) -> str | None:
        """Where a loss that is not finite comes from, on a CPU; None if it is finite.

        Args:
            forward: repeats the batch's forward pass.
        """
        if not self.layers.on_cpu or math.isfinite(loss.item()):
            return None
        return self.layers.first_not_finite(forward) or "the loss itself"

    def gradients(self, step: int) -> str | None:
        """Record the gradients before optimizer step `step`; on a CPU return where they are not finite, or None."""
        norms = self.layers.gradient_norms()
        self.norms.append((step, norms))
        if self.due:
            values, samples = self.layers.gradients()
            self.before = self.layers.weights()
            self.row = self.by_layer(self.layers.fetch([norms])[0], values)
            if self.run.main:
                self.run.tracker.log_histograms(self.named("gradients", samples), step)
                self.run.tracker.log_histograms(self.named("weights", self.before), step)
        # a sum is finite if they all are, and is found in a fifth of the time
        return None if not self.layers.on_cpu or math.isfinite(sum(norms.tolist())) else self.blame(step)

    def named(self, kind: str, samples: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Samples by tracker's name."""
        return {f"{kind}/{name}": sample for name, sample in zip(self.layers.names, samples, strict=True)}

    def by_layer(self, norms: np.ndarray, values: np.ndarray) -> dict[str, dict[str, float]]:
        """Statistics of a layer from those of its tensors: of the largest one, and the norm of all."""
        rows: dict[str, dict[str, float]] = {}
        for name, norm, (mean, most, share) in zip(self.layers.names, norms.tolist(), values.tolist(), strict=True):
            row = rows.setdefault(name.rpartition(".")[0], {"grad_norm": 0.0, "grad_mean": mean, "grad_max": 0.0})
            row["grad_norm"] = math.hypot(row["grad_norm"], norm)
            row["grad_max"] = most if math.isnan(most) else max(row["grad_max"], most)
            row["grad_not_finite"] = max(row.get("grad_not_finite", 0.0), share)
        return rows

    def end_step(self, step: int) -> None:
        """Complete what is recorded of a step, after the weights have changed."""
        if not self.due:
            return
        self.due = False
        sums: dict[str, list[float]] = {}
        for name, old, new in zip(self.layers.names, self.before, self.layers.weights(), strict=True):
            changed = sums.setdefault(name.rpartition(".")[0], [0.0, 0.0])
            changed[0] += float(np.square(new - old, dtype=np.float64).sum())
            changed[1] += float(np.square(old, dtype=np.float64).sum())
        outputs = self.layers.activations()
        for name, (moved, size) in sums.items():
            self.row[name]["change"] = math.sqrt(moved / size) if size else 0.0
        rows = {name: {"activation_mean": mean, "activation_zeros": zeros} for name, (mean, zeros) in outputs.items()}
        for name, row in self.row.items():  # in the order in which data pass the layers, then those without output
            rows[name] = row | rows.get(name, {})
        self.write({"step": step, "layers": rows})

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row to layers.jsonl; a resumed run first drops those of steps that it takes again."""
        if not self.run.main:
            return
        path = self.run.path / "layers.jsonl"
        if not self.written and path.exists():
            write_rows(path, [old for old in read_layers(self.run.path) if old["step"] < row["step"]])
        self.written = True
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        scalars = {
            f"layers/{name}/{key}": value
            for name, each in row["layers"].items()
            for key, value in each.items()
            if key in ("change", "activation_zeros")
        }
        self.run.tracker.log(scalars, row["step"])

    def metrics(self, epoch: int, step: int) -> dict[str, float]:
        """What a tracker gets of the steps since the last call: norms of the whole gradient, memory, the GPU's state.

        Args:
            epoch: finished epochs.
            step: finished optimizer steps.
        """
        values: dict[str, float] = {}
        if self.norms:
            squared = np.square(self.layers.fetch([norms for _, norms in self.norms]), dtype=np.float64).sum(axis=1)
            totals = np.sqrt(squared[np.isfinite(squared)])  # those of half precision overflow now and then
            if len(totals):
                values = {"train/grad_norm": float(totals.mean()), "train/grad_norm_max": float(totals.max())}
            self.norms.clear()
        values |= self.memory.read()
        for sentence in self.memory.check() if epoch or step >= SETTLED else ():
            self.run.log.warning(sentence)
        return values | self.gpu.read()

    def blame(self, step: int) -> str | None:
        """Where the gradients of a recorded step were not finite; None if they were, or are not known."""
        vectors = [norms for known, norms in self.norms if known == step]
        if not vectors:
            return None
        broken = ~np.isfinite(self.layers.fetch(vectors)[0])
        if not broken.any():
            return None
        if broken.all():
            return "the gradients of all layers"
        # backwards they pass the last layer first
        last = self.layers.names[int(np.flatnonzero(broken)[-1])]
        return f"the gradient of {last}"


def check_outputs(output: Any, classes: int | None, *size: int | None, beside: int = 0) -> None:
    """Compare a network's output with (B, beside + classes, *size), in which None is any number.

    Raises:
        UserError: another shape. Frameworks would say which target is out of bounds, and a GPU not even that, or
            compare what they can stretch to one shape.
    """
    shape = getattr(output, "shape", None)
    wanted = (classes and beside + classes, *size)
    pairs = zip(wanted, () if shape is None else tuple(shape)[1:], strict=False)
    if shape is None or len(shape) != len(wanted) + 1 or any(need not in (None, have) for need, have in pairs):
        found = f"a {type(output).__name__}" if shape is None else f"({', '.join(map(str, ('batch', *shape[1:])))})"
        needed = ", ".join("any" if need is None else str(need) for need in wanted)
        raise UserError(
            f"The network's output is {found} and has to be (batch, {needed}): `build` in the network's file gets the "
            "number of outputs as `classes`, and the last layer must have as many; or choose another model=NAME."
        )


def not_finite(value: float, where: str, place: str | None, lr: float) -> UserError:
    """The error of a training whose loss or gradients are not finite.

    Args:
        where: the step, in words.
        place: where it began, if that is known.
        lr: `optimizer.lr`.
    """
    if place == "the input":
        return UserError(f"The loss became {value} at {where}, as its input is: run scripts/validate_data.py.")
    begun = f", first in {place}" if place else ""
    return UserError(
        f"The loss became {value} at {where}{begun}: lower optimizer.lr={lr:g}, set trainer.gradient_clip_val=1.0, or "
        "use trainer.precision=32-true."
    )


class MemoryWatch:
    """Warns of memory that grows after the start of a training, and says what there is more of."""

    def __init__(self, threshold_mib: int | None, device_bytes: Callable[[], int]) -> None:
        """Warn at each further `threshold_mib`; None never warns."""
        self.threshold = threshold_mib
        self.meters = {"RAM": resident_bytes, "GPU memory": device_bytes}
        self.base: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()

    def read(self) -> dict[str, float]:
        """MiB in use now, for trackers."""
        self.now = {name: meter() for name, meter in self.meters.items()}
        used = {name: size / 2**20 for name, size in self.now.items() if size}
        return {f"memory/{name.replace(' ', '_').lower()}_mib": mib for name, mib in used.items()}

    def check(self) -> list[str]:
        """Compare the last reading with that at the first call: a sentence for what has grown by the threshold."""
        if not self.threshold:
            return []
        if not self.base:
            self.base, (self.counts, self.sizes) = self.now, census()
            return []
        sentences = []
        for name, size in self.now.items():
            grown = (size - self.base[name]) / 2**20
            if grown >= self.threshold:
                sentences.append(
                    f"{name} has grown by {grown:,.0f} MiB since the start of the training ({self.describe()}): look "
                    "for a list that keeps results of every step, such as losses that were not detached."
                )
                self.base[name] = size
        return sentences

    def describe(self) -> str:
        """What there is more of than at the first call: bytes of arrays, then counts of objects."""
        counts, sizes = census()
        found = []
        for name, size in sizes.items():
            if (mib := (size - self.sizes[name]) >> 20) > 0:
                found.append(f"{counts[name] - self.counts[name]:+,} of type {name} with {mib:,} MiB more")
        more = [(name, count - self.counts[name]) for name, count in counts.items() if name not in ARRAYS]
        name, count = max(more, key=lambda row: row[1], default=("", 0))
        found += [f"{count:+,} of type {name}"] if count > 0 else []
        return ", ".join(found) or "in nothing that Python knows of"


def census() -> tuple[Counter[str], Counter[str]]:
    """Count Python's objects by type, and the bytes of arrays and tensors; those before the training are frozen."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    for container in gc.get_objects():
        counts[type(container).__name__] += type(container).__name__ not in ARRAYS
        for each in (container, *gc.get_referents(container)):  # the collector does not know plain arrays
            if type(each).__name__ in ARRAYS and id(each) not in seen:
                seen.add(id(each))
                counts[type(each).__name__] += 1
                sizes[type(each).__name__] += int(getattr(each, "nbytes", 0) or 0)
    return counts, sizes


class GpuMonitor:
    """Reads a GPU's state from NVIDIA's library (nvidia-ml-py) while it trains, or nothing where there is none."""

    def __init__(self, asked: bool = True) -> None:
        """`asked=False` reads nothing."""
        self.handle: Any = None
        if not asked:
            return
        try:
            self.library = importlib.import_module("pynvml")
            self.library.nvmlInit()
            chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
            if chosen.isdigit():
                self.handle = self.library.nvmlDeviceGetHandleByIndex(int(chosen))
            else:  # GPU-... or MIG-...
                self.handle = self.library.nvmlDeviceGetHandleByUUID(chosen)
        except Exception:  # not installed, no driver, no such GPU: nobody asked for it by name
            self.handle = None

    def read(self) -> dict[str, float]:
        """Per cent of the time in which the GPU computed, MiB in use by all programs, degrees Celsius and watts."""
        if self.handle is None:
            return {}
        nvml, readings = self.library, dict[str, float]()
        for name, read in (
            ("utilisation", lambda: nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu),
            ("memory_mib", lambda: nvml.nvmlDeviceGetMemoryInfo(self.handle).used / 2**20),
            ("temperature", lambda: nvml.nvmlDeviceGetTemperature(self.handle, nvml.NVML_TEMPERATURE_GPU)),
            ("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(self.handle) / 1000),
        ):
            with contextlib.suppress(nvml.NVMLError):  # a MIG instance does not tell all of them
                readings[f"gpu/{name}"] = float(read())
        return readings
