"""A step as numbered values: their sizes, and their number formats under `paddle.amp.auto_cast`, level O1.

Paddle cannot infer formats on a CPU, whose kernels lack half precision, so its rules are applied to the program in
float32.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from paddle.amp import amp_lists
from paddle.autograd.backward_utils import ValueDict

BYTES = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "float64": 8}
# names of the operations where they differ from those in Paddle's lists
LISTED = {"cross_entropy_with_softmax": "softmax_with_cross_entropy", "sum": "reduce_sum", "p_norm": "pnorm"}
NORMS = ("batch_norm_", "batch_norm")  # their input decides alone: the weights stay in float32


@dataclass(frozen=True)
class Operation:
    """One operation on numbered values; `name` is Paddle's, without its dialect."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """One step. `sizes` are the bytes of each value, `gradients` maps a parameter to its gradient.

    The first `forward` operations are the forward pass with the loss. `floats` are the values of float32, and `data`
    what a batch has. A loss that looks at values is no part of it: `outputs` maps what it is given to what comes back.
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
    """`half` values take half their bytes; `copies` maps a value to the one that operations in half precision read."""

    half: set[int] = field(default_factory=set)
    copies: dict[int, int] = field(default_factory=dict)
    made: dict[int, list[int]] = field(default_factory=dict)  # operation -> values that are copied before it


def number_values(
    operations: list[Any],
    forward: int,
    weights: list[Any],
    gradients: list[Any],
    data: list[Any],
    outputs: list[tuple[Any, Any]],
) -> Program:
    """Paddle's values as numbers, with their sizes."""
    numbers = ValueDict()  # the same value comes as another Python object each time
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
    found = {number(weight): number(value) for weight, value in gradients if value is not None}
    given = tuple(map(number, data))
    back = {number(value): number(gradient) for value, gradient in outputs}
    return Program(tuple(rows), forward, tuple(sizes), frozenset(floats), parameters, buffers, found, given, back)


def cast(program: Program, kind: str) -> Casts:
    """Go through the forward pass as auto_cast does; `kind` is "float16" or "bfloat16"."""
    white, black = amp_lists.white_list()[kind]["O1"], amp_lists.black_list()[kind]["O1"]
    casts = Casts()
    for index, operation in enumerate(program.operations):
        if index == program.forward:
            casts.half.update(back for value, back in program.outputs.items() if value in casts.half)
        name = re.sub(r"_?grad_?$", "", operation.name)
        deciding = [value for value in operation.inputs if value in program.floats]
        if index >= program.forward:
            casts.half.update(gradient_halves(program, operation, casts))
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


def gradient_halves(program: Program, operation: Operation, casts: Casts) -> list[int]:
    """A gradient has its value's format; those of weights are made in float32 in the end."""
    halves = any(value in casts.half for value in operation.inputs)
    finals = set(program.gradients.values())
    return [value for value in operation.outputs if halves and value not in finals]


def copy_of(value: int) -> int:
    """The number of a value's copy in half precision."""
    return -1 - value


def size_of(program: Program, casts: Casts, value: int) -> int:
    """Bytes of a value."""
    return program.sizes[value] // 2 if value in casts.half and value in program.floats else program.sizes[value]
