"""Number formats under `paddle.amp.auto_cast`, level O1: which values are halved, and which copies are made.

Paddle cannot infer them on a CPU, whose kernels lack half precision, so its rules are applied to the float32 program.
"""

import re
from dataclasses import dataclass, field

from paddle.amp import amp_lists

from src.memory.paddle_program import Operation, Program

# names of the operations where they differ from those in Paddle's lists
LISTED = {"cross_entropy_with_softmax": "softmax_with_cross_entropy", "sum": "reduce_sum", "p_norm": "pnorm"}
NORMS = ("batch_norm_", "batch_norm")  # their input decides alone: the weights stay in float32


@dataclass
class Casts:
    """`half` values take half their bytes; `copies` maps a value to the one that operations in half precision read."""

    half: set[int] = field(default_factory=set)
    copies: dict[int, int] = field(default_factory=dict)
    made: dict[int, list[int]] = field(default_factory=dict)  # operation -> values that are copied before it


def cast(program: Program, kind: str) -> Casts:
    """Go through the forward pass as auto_cast does; `kind` is "float16" or "bfloat16"."""
    white, black = amp_lists.white_list()[kind]["O1"], amp_lists.black_list()[kind]["O1"]
    casts = Casts()
    for index, operation in enumerate(program.operations):
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
