"""Export a network as Paddle's inference program, and that program as ONNX; needs only `onnx`, not paddle2onnx."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

import paddle
from paddle import nn
from src.kit.errors import UserError
from src.kit.paddle.onnx_operators import ONNX_TYPES, OPERATORS, Operation

__all__ = ["export_part"]

SOURCES = Path(__file__).resolve().parents[2]  # the project's code
OPSET = 18  # the first where all reductions take their axes as an input


class Whole(nn.Layer):
    """Calls a network: Paddle rewrites the source of the outermost `forward`, and this one has nothing to rewrite."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: paddle.Tensor) -> Any:
        return self.network(images)


def export_part(network: nn.Layer, shape: Sequence[int], folder: Path, name: str, formats: Sequence[str]) -> None:
    """Write Paddle's inference format, `folder/name.json` with `folder/name.pdiparams`, and `folder/name.onnx`.

    Args:
        network: it is set to evaluation mode.
        shape: of its float32 input, without the batch, which may have any size.
        formats: "paddle" and "onnx".

    Raises:
        UserError: Paddle cannot turn the network into a static program, or an operator has no equivalent here.
    """
    with TemporaryDirectory() as scratch:
        program = (folder if "paddle" in formats else Path(scratch)) / name
        save_program(network, shape, program)
        if "onnx" in formats:
            save_onnx(program, folder / f"{name}.onnx")


def save_program(network: nn.Layer, shape: Sequence[int], path: Path) -> None:
    """Write `path`.json and `path`.pdiparams."""
    network.eval()
    specs = [paddle.static.InputSpec([None, *shape], "float32", "input")]
    own = {type(layer).__module__ for layer in network.sublayers(include_self=True)}
    files = {str(getattr(sys.modules[name], "__file__", "")) for name in own if not name.startswith("paddle")}
    try:
        # Paddle would rewrite the source: that makes larger programs, and fails on zip(strict=True)
        paddle.jit.ignore_module([only_file(file) for file in (f"{SOURCES}{os.sep}", *files) if file])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            paddle.jit.save(Whole(network), str(path), input_spec=specs)
    except OSError:  # a full disk, which says nothing about the network
        raise
    except Exception as error:  # Paddle raises many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(
            f"Paddle cannot export {type(network).__name__} ({lines[-1][:200]}): its forward must not choose by "
            "values, and the batch is the one size that a reshape may leave to -1."
        ) from error


def only_file(path: str) -> ModuleType:
    """A module without members: of a whole one, Paddle would search all members, with those of what it imports."""
    module = ModuleType(path)
    module.__file__ = path
    return module


def save_onnx(program: Path, path: Path) -> None:
    """Convert what `save_program` wrote to ONNX: "input" -> "output", or "output0" and so on."""
    import onnx

    model = Converter(program).convert()
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


class Converter:
    """Builds an ONNX graph from the operations of a program, in their order. It is the `Graph` of the operators."""

    def __init__(self, program: Path) -> None:
        layer = paddle.jit.load(str(program))
        self.program = layer.program()  # the block alone does not keep it alive
        tensors = [*layer.parameters(), *layer.buffers()]
        self.parameters = {tensor.name: tensor.numpy() for tensor in tensors}
        self.names: dict[int, str | list[str]] = {}  # of Paddle's values, by their ids
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[Any] = []
        self.inputs: list[tuple[str, int, list[Any]]] = []  # name, type, shape
        self.outputs: list[tuple[str, int, list[Any]]] = []

    def constant(self, value: Any, dtype: str = "int64") -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> Any:
        from onnx import helper

        outputs = attributes.pop("outputs", 1)
        names = [f"{operator.lower()}{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def value_of(self, name: str | list[str]) -> np.ndarray | None:
        if isinstance(name, str):
            return self.constants.get(name)
        parts = [np.ravel(self.constants[part]) for part in name if part in self.constants]
        return np.concatenate(parts) if len(parts) == len(name) else None

    def convert(self) -> Any:
        """The ONNX model, with constants that nothing uses left out."""
        from onnx import helper, numpy_helper

        for operation in self.program.global_block().ops:
            self.translate(operation)
        names = ["output"] if len(self.outputs) == 1 else [f"output{place}" for place in range(len(self.outputs))]
        for name, (value, _, _) in zip(names, self.outputs, strict=True):
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        used = {name for node in self.nodes for name in node.input}
        weights = [numpy_helper.from_array(value, name) for name, value in self.constants.items() if name in used]
        inputs = [helper.make_tensor_value_info(*each) for each in self.inputs]
        outputs = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (_, kind, shape) in zip(names, self.outputs, strict=True)
        ]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)

    def translate(self, operation: Any) -> None:
        """Add the nodes of one operation."""
        kind = operation.name().removeprefix("pd_op.").removesuffix("_")  # a final _ marks one that works in place
        attributes, results = operation.attrs(), operation.results()
        if kind == "builtin.parameter":
            name = attributes["parameter_name"]
            self.constants[name] = np.ascontiguousarray(self.parameters[name])
            self.names[results[0].id] = name
        elif kind == "data":
            self.names[results[0].id] = attributes["name"]
            self.inputs.append((attributes["name"], *describe(results[0])))
        elif kind == "builtin.shadow_output":
            value = operation.operands_source()[0]
            self.outputs.append((str(self.names[value.id]), *describe(value)))
        elif kind in OPERATORS:
            try:
                made = OPERATORS[kind](self, self.describe(kind, operation))
            except NotImplementedError as error:
                raise UserError(f"The network has {error}, which cannot be exported to ONNX.") from error
            for result, name in zip(results, made if isinstance(made, tuple) else (made,), strict=False):
                self.names[result.id] = name
        else:
            raise UserError(f"The network uses Paddle's operator {kind}, which cannot be exported to ONNX.")

    def describe(self, kind: str, operation: Any) -> Operation:
        """Collect what an operator's function needs to know."""
        values: list[Any] = [value if value.initialized() else None for value in operation.operands_source()]
        tensors = [value is not None and value.is_dense_tensor_type() for value in values]
        first = operation.results()[0]
        tensor = first.is_dense_tensor_type()
        return Operation(
            kind,
            ["" if value is None else self.names[value.id] for value in values],
            operation.attrs(),
            [list(value.shape) if dense else [] for value, dense in zip(values, tensors, strict=True)],
            type_name(first) if tensor else "",
            list(first.shape) if tensor else [],
        )


def type_name(value: Any) -> str:
    """The dtype of one of Paddle's values, as float32."""
    return str(value.dtype).rsplit(".", 1)[-1].lower()


def describe(value: Any) -> tuple[int, list[Any]]:
    """The ONNX type and shape of an input or output; a size of -1 is the batch at the first place, else unknown."""
    shape = [("batch" if place == 0 else None) if size < 0 else size for place, size in enumerate(value.shape)]
    return ONNX_TYPES[type_name(value)], shape
