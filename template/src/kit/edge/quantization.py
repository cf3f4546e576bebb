"""Post-training quantization of an ONNX network to INT8 with ONNX Runtime: 8-bit weights and activations (QDQ)."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference import Card

__all__ = ["arithmetic_nodes", "embed_card", "quantize"]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def embed_card(path: Path, card: Card) -> None:
    """Store the card in an .onnx file, so that the file alone predicts."""
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"card": card.to_json()})
    path.write_bytes(model.SerializeToString())


def quantize(model: Path, target: Path, batches: Iterable[np.ndarray], symmetric: bool = False) -> None:
    """Write `target`, `model` with INT8 weights per channel and INT8 activations.

    What comes after the last layer with weights stays in float32: a detector's boxes would lose everything in 8 bits.

    Args:
        batches: inputs float32 (B, C, H, W) to choose the activations' ranges from; some 100 samples suffice.
        symmetric: signed activations around zero, which TensorRT requires. x86 processors are slower with them than
            with float32, and several times as fast with unsigned ones.

    Raises:
        UserError: nothing to quantize.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        """Feeds the batches to ONNX Runtime, once."""

        def __init__(self, name: str) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = ({name: batch} for batch in batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    logging.getLogger().addFilter(without_advice)  # ONNX Runtime advises to do what is done here
    try:
        with TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
            whole = onnx.load(prepared)
            graph = whole.graph
            for place, node in enumerate(graph.node):
                node.name = node.name or f"node{place}"  # nodes are left out by their names
            onnx.save(whole, prepared)
            weights = {value.name: len(value.dims) for value in graph.initializer}
            if not any(has_weights(node, weights) for node in graph.node):
                raise UserError(f"{model} has no convolution and no linear layer: there is nothing to quantize.")
            quantization.quantize_static(
                prepared,
                target,
                Reader(graph.input[0].name),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8 if symmetric else quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=arithmetic_nodes(graph),
                extra_options={"ActivationSymmetric": symmetric},
            )
    finally:
        logging.getLogger().removeFilter(without_advice)


def without_advice(record: logging.LogRecord) -> bool:
    """Leave out ONNX Runtime's advice to prepare the model."""
    return "pre-processing before quantization" not in record.getMessage()


def has_weights(node: Any, weights: dict[str, int]) -> bool:
    """Whether a node is a layer with a weight matrix; a product with a constant vector is arithmetic."""
    return node.op_type in WEIGHTED and any(weights.get(name, 0) >= 2 for name in node.input)


def arithmetic_nodes(graph: Any) -> list[str]:
    """Names of the nodes of an ONNX graph that are no layer with weights and have none below them."""
    weights = {value.name: len(value.dims) for value in graph.initializer}
    needed: set[str] = set()  # tensors that a layer with weights depends on
    kept = []
    for node in reversed(graph.node):  # ONNX sorts nodes by their dependencies
        if has_weights(node, weights) or any(name in needed for name in node.output):
            needed.update(node.input)
        else:
            kept.append(node.name)
    return kept
