"""Make an exported network smaller and faster: INT8, OpenVINO, TensorRT's commands."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference import Card, read_card

__all__ = ["arithmetic_nodes", "convert", "embed_card", "fix_batch", "quantize", "set_runtime", "write_tensorrt"]

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
        symmetric: signed activations around zero and biases in float32, as TensorRT reads nothing else. x86 processors
            are slower with them than with float32, and several times as fast with unsigned ones.

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
                extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric},
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


def convert(model: Path, card: Card, folder: Path, runtime: str, precision: str, batches: Sequence[np.ndarray]) -> None:
    """Write `folder`: card.json, and the network for a runtime and any batch, which `Predictor.open` reads.

    Args:
        model: model.onnx; further parts lie beside it.
        runtime: onnxruntime or openvino.
        precision: f32, bf16 (OpenVINO only: weights stay as they are, the processor computes in bf16) or int8.
        batches: inputs to calibrate INT8 with.
    """
    folder.mkdir(parents=True)
    parts = card.output.get("detector", {}).get("parts", ())
    computes = {"f32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
    replace(card, runtime={"name": runtime, "precision": computes, "threads": 0, "batch": 0}).write(folder)
    if runtime == "onnxruntime":
        target = folder / "model.onnx"
        if precision == "int8":
            quantize(model, target, batches)
        else:
            shutil.copyfile(model, target)
        embed_card(target, card)
        for part in parts:
            shutil.copyfile(model.with_name(f"{part}.onnx"), folder / f"{part}.onnx")
        return
    for part in ("model", *parts):
        source = model.with_name(f"{part}.onnx") if parts else model
        write_openvino(source, folder / f"{part}.xml", precision if part == "model" else "f32", batches)


def set_runtime(folder: Path, **values: int) -> None:
    """Change keys of the card's `runtime` in a folder that `convert` wrote: `threads`, or the one `batch` it takes."""
    card = read_card(folder)
    replace(card, runtime={**card.runtime, **values}).write(folder)
    if "batch" in values and (folder / "model.onnx").is_file():
        fix_batch(folder / "model.onnx", values["batch"])


def fix_batch(path: Path, batch: int) -> None:
    """Give the input of an .onnx file a fixed first dimension, with which runtimes plan their memory."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        dimension.Clear()
        dimension.dim_value = batch
    path.write_bytes(model.SerializeToString())


def write_openvino(model: Path, target: Path, precision: str, batches: Sequence[np.ndarray]) -> None:
    """Write OpenVINO's `target` and the .bin file of its weights."""
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry
    import onnx
    import openvino

    network: Any = openvino.Core().read_model(model)
    if precision == "int8":
        import nncf

        graph = onnx.load(model).graph
        left_out = set(arithmetic_nodes(graph))
        # OpenVINO names its operations after ONNX's nodes, or their outputs where these have no name
        names = {name for node in graph.node if node.name in left_out for name in (node.name, *node.output) if name}
        samples = [sample[None] for batch in batches for sample in batch]
        nncf.set_log_level(40)
        network = nncf.quantize(
            network,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=sorted(names), validate=False),
        )
    openvino.save_model(network, target, compress_to_fp16=False)


def write_tensorrt(folder: Path, device: str, int8: bool) -> Path:
    """Write build_engine.sh, which is to be run on the device, where trtexec comes with JetPack.

    Raises:
        UserError: a device that is not known.
    """
    if device not in ("jetson-nano", "jetson-orin"):
        raise UserError(f"Unknown device {device!r}: choose jetson-nano or jetson-orin.")
    # the Nano's GPU (compute capability 5.3) has no INT8 instructions, and its last JetPack (4.6) has TensorRT 8.2
    fast = int8 and device != "jetson-nano"
    model, flags = ("model.int8.onnx", "--int8 --fp16") if fast else ("model.onnx", "--fp16")
    note = "# The Jetson Nano has no INT8 instructions: its engine computes in float16.\n" if int8 and not fast else ""
    script = folder / "build_engine.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"# Build a TensorRT engine on the {device}, then time it. It has not been tried on a device.\n{note}"
        'set -e\ncd "$(dirname "$0")"\nPATH=$PATH:/usr/src/tensorrt/bin\n'
        f"trtexec --onnx={model} {flags} --saveEngine=model.engine\n"
        "trtexec --loadEngine=model.engine --warmUp=500 --duration=10\n",
        "utf-8",
    )
    script.chmod(0o755)
    return script
