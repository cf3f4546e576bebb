"""A network's training step as Paddle's own list of operations on numbered values; nothing is computed.

Paddle cannot infer the number formats of `paddle.amp.auto_cast` (level O1) on a CPU, whose kernels lack half precision,
so its rules are applied to the program in float32.
"""

import math
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import paddle
from paddle.amp import amp_lists
from paddle.autograd.backward_utils import ValueDict
from src.kit.memory import DataShape, example_targets
from src.kit.training import build_loss, build_model

BYTES = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "float64": 8}
# operations whose names differ from those in Paddle's lists
LISTED = {"cross_entropy_with_softmax": "softmax_with_cross_entropy", "sum": "reduce_sum", "p_norm": "pnorm"}
NORMS = ("batch_norm_", "batch_norm")  # only their input decides: the weights stay in float32


@dataclass(frozen=True)
class Operation:
    """One operation on numbered values; `name` is Paddle's, without its dialect."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """One training step.

    The first `forward` operations are the forward pass with the loss. `sizes` are the bytes of each value, `floats` the
    values in float32, `data` those of a batch, and `gradients` maps a parameter to its gradient. A loss that depends on
    values is not part of the program: then `outputs` maps each output of the network to the gradient it gets back.
    """

    operations: tuple[Operation, ...]
    forward: int
    sizes: tuple[int, ...]
    floats: frozenset[int]
    parameters: tuple[int, ...]
    buffers: tuple[int, ...]
    gradients: dict[int, int]
    data: tuple[int, ...]
    outputs: dict[int, int]


@dataclass
class Casts:
    """Number formats under autocast.

    `half` values take half their bytes; `copies` maps a value to the copy that operations in half precision read;
    `made` maps an operation's index to the values that are copied before it.
    """

    half: set[int] = field(default_factory=set)
    copies: dict[int, int] = field(default_factory=dict)
    made: dict[int, list[int]] = field(default_factory=dict)


@contextmanager
def on_cpu() -> Iterator[None]:
    """Compute on the CPU, even if there is a GPU."""
    device = paddle.get_device()
    paddle.set_device("cpu")
    try:
        yield
    finally:
        paddle.set_device(device)


def without_weights(cfg: DictConfig) -> DictConfig:
    """The configuration without pretrained weights."""
    merged = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    assert isinstance(merged, DictConfig)
    return merged


class StaticNetwork:
    """The configured network, whose weights are never filled; `outputs` have the shapes of one image's outputs."""

    def __init__(self, cfg: DictConfig, shape: DataShape) -> None:
        self.cfg, self.shape = cfg, shape
        self.outputs: Any = None
        sizes = shape.classes, shape.channels, shape.image_size
        with paddle.LazyGuard():
            self.layer = build_model(without_weights(cfg), *sizes, **shape.arguments)
        self.layer.train()
        stores = [s for sub in self.layer.sublayers(include_self=True) for s in (sub._parameters, sub._buffers)]
        self.weights = [(store, key, value) for store in stores for key, value in store.items() if value is not None]

    def build_program(self, batch: int) -> Program:
        """The training step with batches of `batch` images."""
        limit = getattr(sys, "tracebacklimit", 1000)  # Python's default
        sys.tracebacklimit = 1  # Paddle keeps the stack of each operation for ever, even after its program
        paddle.enable_static()
        try:
            with warnings.catch_warnings(), paddle.static.program_guard(paddle.static.Program()):
                warnings.simplefilter("ignore")  # of what static programs lack, and eager ones do not
                return self.trace_step(batch)
        finally:
            paddle.disable_static()
            sys.tracebacklimit = limit

    def trace_step(self, batch: int) -> Program:
        """Build the step in Paddle's static mode."""
        weights: list[Any] = []
        for number, (store, key, value) in enumerate(self.weights):
            store[key] = paddle.static.data(f"weight_{number}", value.shape, value.dtype)
            store[key].stop_gradient = value.stop_gradient
            weights.append(store[key])
        size = self.shape.image_size
        images = paddle.static.data("images", [batch, self.shape.channels, size, size], "float32")
        targets = [
            paddle.static.data(f"target_{number}", array.shape, str(array.dtype))
            for number, array in enumerate(example_targets(self.cfg.task, self.shape, batch))
        ]
        outputs = self.layer(images)
        given = []  # gradients that a loss outside the program passes back
        if self.shape.objects:
            ends = paddle.utils.flatten(outputs)
            given = [paddle.static.data(f"gradient_{number}", end.shape, end.dtype) for number, end in enumerate(ends)]
            self.outputs = paddle.utils.map_structure(lambda end: np.empty(end.shape[1:]), outputs)
        else:
            ends = [build_loss(self.cfg, self.shape.class_counts())(outputs, *targets)]
        block = paddle.static.default_main_program().global_block()
        forward = len(block.ops)
        trained = [weight for weight in weights if not weight.stop_gradient]
        gradients = zip(trained, paddle.static.gradients(ends, trained, given or None), strict=True)
        pairs = list(zip(ends, given, strict=True)) if given else []
        return number_values(block.ops, forward, weights, list(gradients), [images, *targets], pairs)


def number_values(
    operations: list[Any],
    forward: int,
    weights: list[Any],
    gradients: list[Any],
    data: list[Any],
    outputs: list[tuple[Any, Any]],
) -> Program:
    """Number Paddle's values and find their sizes.

    Args:
        forward: how many of the operations are the forward pass with the loss.
        gradients: (weight, its gradient or None).
        outputs: (output of the network, its gradient) where the loss is not part of the program.
    """
    numbers = ValueDict()  # the same value is another Python object each time
    sizes: list[int] = []
    floats: set[int] = set()

    def number(value: Any) -> int:
        if value not in numbers:
            numbers[value] = len(sizes)
            dense = value.is_dense_tensor_type()
            kind = str(value.dtype).rpartition(".")[2] if dense else ""
            sizes.append(math.prod(max(0, side) for side in value.shape) * BYTES.get(kind, 4) if dense else 0)
            if kind == "float32":
                floats.add(numbers[value])
        return numbers[value]

    rows = []
    for operation in operations:
        inputs = [source for source in operation.operands_source() if source is not None and source.initialized()]
        name = operation.name().rpartition(".")[2]
        rows.append(Operation(name, tuple(map(number, inputs)), tuple(map(number, operation.results()))))
    parameters = tuple(number(weight) for weight in weights if not weight.stop_gradient)
    buffers = tuple(number(weight) for weight in weights if weight.stop_gradient)
    numbered = {number(weight): number(value) for weight, value in gradients if value is not None}
    batch = tuple(map(number, data))
    passed = {number(value): number(gradient) for value, gradient in outputs}
    return Program(tuple(rows), forward, tuple(sizes), frozenset(floats), parameters, buffers, numbered, batch, passed)


def find_casts(program: Program, kind: str) -> Casts:
    """The number formats that auto_cast would choose; `kind` is "float16" or "bfloat16"."""
    white, black = amp_lists.white_list()[kind]["O1"], amp_lists.black_list()[kind]["O1"]
    casts = Casts()
    for index, operation in enumerate(program.operations):
        if index == program.forward:
            casts.half.update(gradient for value, gradient in program.outputs.items() if value in casts.half)
        name = re.sub(r"_?grad_?$", "", operation.name)
        deciding = [value for value in operation.inputs if value in program.floats]
        if index >= program.forward:
            casts.half.update(half_gradients(program, operation, casts))
        elif LISTED.get(name, name) in white:
            made = [value for value in deciding if value not in casts.half and value not in casts.copies]
            casts.made[index] = made
            casts.copies.update(dict.fromkeys(made, -1))
            casts.half.update(operation.outputs)
        elif LISTED.get(name, name) not in black and deciding:
            deciding = deciding[:1] if name in NORMS else deciding
            if all(value in casts.half for value in deciding):
                casts.half.update(operation.outputs[:1] if name in NORMS else operation.outputs)
    return casts


def half_gradients(program: Program, operation: Operation, casts: Casts) -> list[int]:
    """The outputs of a backward operation in half precision, which the weights' own gradients never are."""
    halves = any(value in casts.half for value in operation.inputs)
    finals = set(program.gradients.values())
    return [value for value in operation.outputs if halves and value not in finals]


def copy_of(value: int) -> int:
    """The number of a value's copy in half precision."""
    return -1 - value


def size_of(program: Program, casts: Casts, value: int) -> int:
    """Bytes of a value."""
    return program.sizes[value] // 2 if value in casts.half and value in program.floats else program.sizes[value]
