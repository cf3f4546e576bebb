"""Counts what a training step and an evaluation batch ask of a device: operations, and waits for their values.

On a CPU, with modes that see each operation of the project's own training. What a CPU does and a GPU does not (looking
at each loss and at class numbers, another suppression of boxes) is turned off or left out.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import boxes

from src.kit.lightning.inspection import TorchLayers
from src.kit.lightning.trainer import RunCallback
from src.kit.run import Run
from tests.support import fit

SOURCE = Path(sys.modules["src"].__file__ or "").parent
COUNTED = 1  # the second batch: the first one makes the optimizer's state
MANY = 20_000  # numbers in boxes, up to which torchvision suppresses all classes at once on a GPU
# the host has to know their values, or how many there are
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive"}
WAITS |= {"equal", "is_nonzero", "bincount", "nms"}
FETCHES = {"cpu", "tolist", "__array__"}  # a CPU takes these without an operation
MADE = {"tensor", "as_tensor", "from_numpy"}  # on the host
CHECKED = {"one_hot"}  # look at values on a CPU only
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "_local_scalar_dense"}


class Tally:
    """Operations and waits of a batch, with the line that asks for each."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def own_waits(self) -> list[str]:
        """Waits that a line of the project asks for itself, rather than a package that it calls."""
        return [wait for wait in self.waits.elements() if "(" not in wait]


def place() -> str:
    """The innermost line of the project, as "tasks/losses/x.py:12", and that of the package that it calls, if any.

    PyTorch is no such package: what it does, the project has asked for.
    """
    frame: Any = sys._getframe(2)
    package = ""
    while frame:
        name = Path(frame.f_code.co_filename)
        if SOURCE in name.parents:
            return f"{name.relative_to(SOURCE)}:{frame.f_lineno}{package}"
        _, _, inside = name.as_posix().partition("/site-packages/")
        if inside and not package and not inside.startswith("torch/"):
            package = f" ({inside}:{frame.f_lineno})"
        frame = frame.f_back
    return package


class Operations(TorchDispatchMode):
    """Counts what reaches the device."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies = {"train": Tally(), "evaluate": Tally()}
        self.phase, self.checks = "", 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if self.phase and not self.checks:
            self.count(operation, args)
        return result

    def count(self, operation: Any, args: Any) -> None:
        tally, (package, _, name) = self.tallies[self.phase], operation._schema.name.partition("::")
        if name in WAITS or selects(name, args):
            tally.waits[f"{name} {place()}"] += 1
        views = any(each.alias_info and not each.alias_info.is_write for each in operation._schema.returns)
        if package != "profiler" and not views and name not in FREE:
            tally.launches[f"{name} {place()}"] += 1


def selects(name: str, args: Any) -> bool:
    """Whether an operation takes indices from a mask: a GPU counts them first."""
    if not name.lstrip("_").startswith(("index", "unsafe_index")) or len(args) < 2 or not isinstance(args[1], list):
        return False
    if "put" in name and args[2].numel() == 1 and not (len(args) > 3 and args[3]):
        return False  # filled where the mask is true
    return any(isinstance(each, torch.Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1])


class Fetches(TorchFunctionMode):
    """Counts what passes values between host and device without an operation on a CPU."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs, operations = getattr(function, "__name__", ""), kwargs or {}, self.operations
        operations.checks += name in CHECKED
        try:
            result = function(*args, **kwargs)
        finally:
            operations.checks -= name in CHECKED
        copied = name in MADE and kwargs.get("device") is not None
        if name in MADE and not copied:
            result.on_host = True
        elif name == "to" and moves(*args[1:], **kwargs):
            fetched = "cpu" in args[1:]
            copied = (fetched or getattr(args[0], "on_host", False)) and not kwargs.get("non_blocking")
            result = result.detach()
            result.on_host = fetched
        if operations.phase and (copied or (name in FETCHES and not getattr(args[0], "on_host", False))):
            operations.tallies[operations.phase].waits[f"{name} {place()}"] += 1
        return result


def moves(*args: Any, **kwargs: Any) -> bool:
    """Whether the arguments of `Tensor.to` name a device."""
    return any(isinstance(each, (torch.device, str, torch.Tensor)) for each in (*args, *kwargs.values()))


@contextmanager
def as_on_a_gpu(operations: Operations) -> Iterator[None]:
    """A training's course on a GPU, whose batch `COUNTED` is counted."""
    start = TorchLayers.__init__

    def follow(name: str, phase: str) -> None:
        own = getattr(RunCallback, name)

        def hook(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
            operations.phase = phase if rest and rest[1] == COUNTED else ""
            own(self, trainer, module, *rest)

        patch.setattr(RunCallback, name, hook)

    def waits_for_a_gpu(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        self.on_cpu = False

    def suppress(*arguments: Any) -> torch.Tensor:
        few = arguments[0].numel() <= MANY
        return (boxes._batched_nms_coordinate_trick if few else boxes._batched_nms_vanilla)(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        follow("on_train_batch_start", "train")
        follow("on_validation_batch_start", "evaluate")
        follow("on_validation_start", "")
        patch.setattr(TorchLayers, "__init__", waits_for_a_gpu)
        patch.setattr(boxes, "batched_nms", suppress)
        yield


def count(cfg: DictConfig) -> dict[str, Tally]:
    """Train an epoch of three batches or more: what the second batch takes to train, and to evaluate."""
    operations = Operations()
    with Run(cfg) as run, as_on_a_gpu(operations), Fetches(operations), operations:
        fit(cfg, run)
    return operations.tallies
