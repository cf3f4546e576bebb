"""Paddle's operators in ONNX, one function each.

A function takes the graph and an `Operation`, and returns the names of its results. A list of tensors (Paddle's
VectorType) is a list of names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["ONNX_TYPES", "OPERATORS", "Operation"]

ONNX_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float64": 11}  # of onnx.TensorProto.DataType

Result = str | list[str] | tuple[str, ...]  # one tensor, a list of tensors, or several results


class Graph(Protocol):
    """What an operator's function may do to the graph that is being built."""

    def constant(self, value: Any, dtype: str = "int64") -> str:
        """Add a constant and return its name."""
        ...

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> Any:
        """Add a node and return the name of its output; with the attribute `outputs`, a list of so many."""
        ...

    def value_of(self, name: str | list[str]) -> np.ndarray | None:
        """The value of a tensor or list that is constant, else None."""
        ...


@dataclass(frozen=True)
class Operation:
    """One operation of Paddle's program: names of its inputs ("" for one that is left out), and what Paddle knows."""

    name: str
    inputs: list[Any]
    attributes: Mapping[str, Any]
    shapes: list[list[int]]  # of the inputs; [] for lists, -1 for the batch
    dtype: str  # of the first result, as float32
    shape: list[int]  # of the first result


OPERATORS: dict[str, Callable[[Graph, Operation], Result]] = {}


def operator(*names: str) -> Callable[[Callable[[Graph, Operation], Result]], Callable[[Graph, Operation], Result]]:
    """Register a function for the operators with these names."""

    def register(function: Callable[[Graph, Operation], Result]) -> Callable[[Graph, Operation], Result]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def direct(onnx_name: str) -> Callable[[Graph, Operation], Result]:
    """Translate an operator whose inputs and meaning are those of an ONNX operator without attributes."""
    return lambda graph, op: graph.add(onnx_name, op.inputs)


OPERATORS.update(
    {
        name: direct(onnx_name)
        for name, onnx_name in {
            "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "floor_divide": "Div",
            "remainder": "Mod", "maximum": "Max", "minimum": "Min", "elementwise_pow": "Pow", "relu": "Relu",
            "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs",
            "floor": "Floor", "erf": "Erf", "where": "Where", "shape64": "Shape", "equal": "Equal",
            "greater_than": "Greater", "less_than": "Less", "logical_and": "And", "logical_not": "Not",
            "hardswish": "HardSwish",
        }.items()
    }
)  # fmt: skip


def integers(graph: Graph, name: str | list[str]) -> list[int]:
    """The values of a constant tensor or list of integers."""
    value = graph.value_of(name)
    if value is None:
        raise NotImplementedError("an operator whose sizes are computed from the data")
    return [int(number) for number in np.ravel(value)]


def integer_tensor(graph: Graph, name: str | list[str]) -> str:
    """The name of an int64 vector with the values of a tensor or a list of tensors."""
    value = graph.value_of(name)
    if value is not None:
        return graph.constant(np.ravel(value))
    if isinstance(name, str):
        return str(graph.add("Cast", [name], to=ONNX_TYPES["int64"]))
    parts = [graph.add("Reshape", [graph.add("Cast", [part], to=7), graph.constant([1])]) for part in name]
    return str(graph.add("Concat", parts, axis=0))


@operator("full", "full_int_array")
def full(graph: Graph, op: Operation) -> Result:
    if op.name == "full_int_array":
        return graph.constant(op.attributes["value"])
    return graph.constant(np.full(op.shape, op.attributes["value"]), op.dtype)


@operator("arange")
def arange(graph: Graph, op: Operation) -> Result:
    start, end, step = (graph.value_of(name) for name in op.inputs)
    if start is None or end is None or step is None:
        raise NotImplementedError("a range whose ends are computed from the data")
    return graph.constant(np.arange(start.item(), end.item(), step.item()), op.dtype)


@operator("meshgrid")
def meshgrid(graph: Graph, op: Operation) -> Result:
    axes = [axis for name in op.inputs[0] if (axis := graph.value_of(name)) is not None]
    if len(axes) < len(op.inputs[0]):
        raise NotImplementedError("a grid whose axes are computed from the data")
    return [graph.constant(grid, str(grid.dtype)) for grid in np.meshgrid(*axes, indexing="ij")]


@operator("conv2d", "depthwise_conv2d")
def convolve(graph: Graph, op: Operation) -> Result:
    return graph.add("Conv", op.inputs[:2], **sliding(op), dilations=op.attributes["dilations"], **groups(op))


@operator("conv2d_transpose")
def convolve_transposed(graph: Graph, op: Operation) -> Result:
    padding = op.attributes.get("output_padding") or [0, 0]
    window = {**sliding(op), "dilations": op.attributes["dilations"], "output_padding": list(padding)}
    return graph.add("ConvTranspose", op.inputs[:2], **window, **groups(op))


def sliding(op: Operation) -> dict[str, list[int]]:
    """Strides and pads of a convolution or pooling; ONNX wants top, left, bottom, right."""
    if op.attributes["padding_algorithm"] != "EXPLICIT":
        raise NotImplementedError(f"padding={op.attributes['padding_algorithm']!r} of {op.name}")
    pads = list(op.attributes["paddings"])
    top, bottom, left, right = pads if len(pads) == 4 else (pads[0], pads[0], pads[1], pads[1])
    return {"strides": list(op.attributes["strides"]), "pads": [top, left, bottom, right]}


def groups(op: Operation) -> dict[str, int]:
    """The groups of a convolution."""
    return {"group": int(op.attributes["groups"])}


@operator("batch_norm")
def batch_norm(graph: Graph, op: Operation) -> Result:
    x, mean, variance, scale, bias = op.inputs[:5]
    return graph.add("BatchNormalization", [x, scale, bias, mean, variance], epsilon=op.attributes["epsilon"])


@operator("layer_norm")
def layer_norm(graph: Graph, op: Operation) -> Result:
    axis, epsilon = op.attributes["begin_norm_axis"], op.attributes["epsilon"]
    return graph.add("LayerNormalization", [name for name in op.inputs if name], axis=axis, epsilon=epsilon)


@operator("pool2d")
def pool(graph: Graph, op: Operation) -> Result:
    size, kind = integers(graph, op.inputs[1]), op.attributes["pooling_type"]
    if op.attributes["global_pooling"] or (op.attributes["adaptive"] and size == [1, 1]):
        return graph.add("GlobalMaxPool" if kind == "max" else "GlobalAveragePool", op.inputs[:1])
    if op.attributes["adaptive"]:
        return pool_to_size(graph, op, size)
    window: dict[str, Any] = {"kernel_shape": size, "ceil_mode": int(op.attributes["ceil_mode"]), **sliding(op)}
    if kind == "max":
        return graph.add("MaxPool", op.inputs[:1], **window)
    return graph.add("AveragePool", op.inputs[:1], **window, count_include_pad=int(not op.attributes["exclusive"]))


def pool_to_size(graph: Graph, op: Operation, size: Sequence[int]) -> Result:
    """Average over a grid of `size` = (rows, columns) by two matrices, since cells may overlap by a pixel."""
    if op.attributes["pooling_type"] == "max":
        raise NotImplementedError(f"adaptive maximum pooling to {list(size)}")
    rows, columns = (average_cells(*lengths) for lengths in zip(op.shapes[0][2:], size, strict=True))
    wide = graph.add("MatMul", [op.inputs[0], graph.constant(columns.T, op.dtype)])
    return graph.add("MatMul", [graph.constant(rows, op.dtype), wide])


def average_cells(length: int, count: int) -> np.ndarray:
    """A matrix (count, length) whose row i averages the positions floor(i n / count) to ceil((i + 1) n / count)."""
    matrix = np.zeros((count, length))
    for row in range(count):
        start, end = row * length // count, -(-(row + 1) * length // count)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


@operator("silu", "swish")
def silu(graph: Graph, op: Operation) -> Result:
    return graph.add("Mul", [op.inputs[0], graph.add("Sigmoid", op.inputs[:1])])


@operator("gelu")
def gelu(graph: Graph, op: Operation) -> Result:
    x = op.inputs[0]
    if op.attributes["approximate"]:
        raise NotImplementedError("gelu(approximate=True)")
    error = graph.add("Erf", [graph.add("Mul", [x, graph.constant(2**-0.5, op.dtype)])])
    shifted = graph.add("Add", [error, graph.constant(1.0, op.dtype)])
    return graph.add("Mul", [graph.add("Mul", [x, shifted]), graph.constant(0.5, op.dtype)])


@operator("relu6")
def relu6(graph: Graph, op: Operation) -> Result:
    return graph.add("Clip", [op.inputs[0], graph.constant(0.0, op.dtype), graph.constant(6.0, op.dtype)])


@operator("clip")
def clip(graph: Graph, op: Operation) -> Result:
    limits = [graph.add("Cast", [graph.add("Squeeze", [each])], to=ONNX_TYPES[op.dtype]) for each in op.inputs[1:]]
    return graph.add("Clip", [op.inputs[0], *limits])


@operator("scale")
def scale(graph: Graph, op: Operation) -> Result:
    x, factor = op.inputs
    bias = graph.constant(op.attributes["bias"], op.dtype)
    factor = graph.add("Cast", [graph.add("Squeeze", [factor])], to=ONNX_TYPES[op.dtype])
    if op.attributes["bias_after_scale"]:
        return graph.add("Add", [graph.add("Mul", [x, factor]), bias])
    return graph.add("Mul", [graph.add("Add", [x, bias]), factor])


@operator("softmax", "log_softmax")
def softmax(graph: Graph, op: Operation) -> Result:
    return graph.add("Softmax" if op.name == "softmax" else "LogSoftmax", op.inputs, axis=op.attributes["axis"])


@operator("dropout", "assign")
def unchanged(graph: Graph, op: Operation) -> Result:
    return str(op.inputs[0])


@operator("matmul")
def matmul(graph: Graph, op: Operation) -> Result:
    def turned(index: int, turn: bool) -> str:
        axes = list(range(len(op.shapes[index])))
        axes[-2:] = axes[:-3:-1]
        return str(graph.add("Transpose", [op.inputs[index]], perm=axes)) if turn else str(op.inputs[index])

    turns = op.attributes["transpose_x"], op.attributes["transpose_y"]
    return graph.add("MatMul", [turned(index, turn) for index, turn in enumerate(turns)])


@operator("flatten")
def flatten(graph: Graph, op: Operation) -> Result:
    rank = len(op.shapes[0])
    start, stop = op.attributes["start_axis"] % rank, op.attributes["stop_axis"] % rank
    return graph.add("Reshape", [op.inputs[0], graph.constant([0] * start + [-1] + op.shapes[0][stop + 1 :])])


@operator("expand")
def expand(graph: Graph, op: Operation) -> Result:
    sizes = graph.value_of(op.inputs[1])
    if sizes is None:
        return graph.add("Expand", [op.inputs[0], graph.add("Abs", [integer_tensor(graph, op.inputs[1])])])
    return graph.add("Expand", [op.inputs[0], graph.constant(np.abs(np.ravel(sizes)))])  # -1 keeps the size, as 1 does


@operator("stack")
def stack(graph: Graph, op: Operation) -> Result:
    axis = op.attributes["axis"]
    return graph.add("Concat", [unsqueeze(graph, name, [axis]) for name in op.inputs[0]], axis=axis)


def unsqueeze(graph: Graph, name: str, axes: Sequence[int]) -> str:
    """Insert axes of size 1."""
    return str(graph.add("Unsqueeze", [name, graph.constant(axes)]))


@operator("split")
def split(graph: Graph, op: Operation) -> Result:
    sizes, (axis,) = (integers(graph, name) for name in op.inputs[1:3])
    return list(graph.add("Split", [op.inputs[0], graph.constant(sizes)], outputs=len(sizes), axis=axis))


@operator("split_with_num")
def split_equally(graph: Graph, op: Operation) -> Result:
    count, axis = op.attributes["num"], integers(graph, op.inputs[1])[0]
    sizes = graph.constant([op.shapes[0][axis] // count] * count)
    return list(graph.add("Split", [op.inputs[0], sizes], outputs=count, axis=axis))


@operator("unbind")
def unbind(graph: Graph, op: Operation) -> Result:
    x, axis = op.inputs[0], op.attributes["axis"]
    return [graph.add("Gather", [x, graph.constant(place)], axis=axis) for place in range(op.shapes[0][axis])]


@operator("slice")
def cut(graph: Graph, op: Operation) -> Result:
    start, end = (integer_tensor(graph, name) for name in op.inputs[1:3])
    part = graph.add("Slice", [op.inputs[0], start, end, graph.constant(op.attributes["axes"])])
    dropped = list(op.attributes.get("decrease_axis") or [])
    return str(graph.add("Squeeze", [part, graph.constant(dropped)]) if dropped else part)


@operator("mean", "sum", "max", "min")
def reduce(graph: Graph, op: Operation) -> Result:
    axes = op.attributes["axis"] if op.attributes.get("axis") is not None else integers(graph, op.inputs[1])
    keep = {"keepdims": int(op.attributes["keepdim"])}
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin"}[op.name]
    return graph.add(kind, [op.inputs[0], graph.constant(list(axes))] if len(axes) else op.inputs[:1], **keep)


@operator("p_norm")
def norm(graph: Graph, op: Operation) -> Result:
    if op.attributes["asvector"] or op.attributes["porder"] not in (1, 2):
        raise NotImplementedError("a norm other than L1 or L2 along one dimension")
    axes, keep = graph.constant([op.attributes["axis"]]), int(op.attributes["keepdim"])
    return graph.add(f"ReduceL{op.attributes['porder']:.0f}", [op.inputs[0], axes], keepdims=keep)


@operator("topk")
def top_k(graph: Graph, op: Operation) -> Result:
    order = {name: int(op.attributes[name]) for name in ("largest", "sorted")}
    count = integer_tensor(graph, op.inputs[1])
    return tuple(graph.add("TopK", [op.inputs[0], count], outputs=2, axis=op.attributes["axis"], **order))


@operator("bilinear_interp", "nearest_interp")
def resize(graph: Graph, op: Operation) -> Result:
    nearest = op.name == "nearest_interp"
    mode: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"} if nearest else {"mode": "linear"}
    if op.attributes["align_corners"]:
        mode["coordinate_transformation_mode"] = "align_corners"
    else:
        corner = nearest or op.attributes["align_mode"] == 1
        mode["coordinate_transformation_mode"] = "asymmetric" if corner else "half_pixel"
    if op.attributes.get("scale"):
        factors = graph.constant([1.0, 1.0, *op.attributes["scale"]], "float32")
        return graph.add("Resize", [op.inputs[0], "", factors], **mode)
    size = [op.attributes["out_h"], op.attributes["out_w"]]
    given = next((name for name in op.inputs[1:3] if name), None)  # Paddle prefers the tensor, if there is one
    wanted = integer_tensor(graph, given) if given is not None else graph.constant(size)
    kept = graph.add("Slice", [graph.add("Shape", op.inputs[:1]), graph.constant([0]), graph.constant([2])])
    return graph.add("Resize", [op.inputs[0], "", "", graph.add("Concat", [kept, wanted], axis=0)], **mode)


OPERATORS.update(
    {
        "builtin.combine": lambda graph, op: list(op.inputs),
        "builtin.split": lambda graph, op: tuple(op.inputs[0]),
        "cast": lambda graph, op: graph.add("Cast", op.inputs, to=ONNX_TYPES[op.dtype]),
        "concat": lambda graph, op: graph.add("Concat", op.inputs[0], axis=integers(graph, op.inputs[1])[0]),
        "embedding": lambda graph, op: graph.add("Gather", [op.inputs[1], op.inputs[0]], axis=0),
        "hardsigmoid": lambda graph, op: graph.add(
            "HardSigmoid", op.inputs, alpha=op.attributes["slope"], beta=op.attributes["offset"]
        ),
        "index_select": lambda graph, op: graph.add("Gather", op.inputs, axis=op.attributes["axis"]),
        "leaky_relu": lambda graph, op: graph.add("LeakyRelu", op.inputs, alpha=op.attributes["negative_slope"]),
        "reshape": lambda graph, op: graph.add("Reshape", [op.inputs[0], integer_tensor(graph, op.inputs[1])]),
        "squeeze": lambda graph, op: graph.add("Squeeze", [op.inputs[0], integer_tensor(graph, op.inputs[1])]),
        "take_along_axis": lambda graph, op: graph.add("GatherElements", op.inputs[:2], axis=op.attributes["axis"]),
        "transpose": lambda graph, op: graph.add("Transpose", op.inputs, perm=op.attributes["perm"]),
        "unsqueeze": lambda graph, op: unsqueeze(graph, op.inputs[0], integers(graph, op.inputs[1])),
    }
)
