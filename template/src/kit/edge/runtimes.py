"""An exported network converted for a runtime and a precision."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.edge.quantization import arithmetic_nodes, embed_card, quantize
from src.kit.errors import UserError
from src.kit.inference import Card

__all__ = ["convert", "write_tensorrt"]


def convert(
    model: Path, card: Card, folder: Path, runtime: str, precision: str, batch: int, batches: Sequence[np.ndarray]
) -> None:
    """Write `folder`: card.json, and the network for a runtime, which `Predictor.open` reads.

    Args:
        model: model.onnx; further parts lie beside it.
        runtime: onnxruntime or openvino.
        precision: f32, bf16 (OpenVINO only: weights stay as they are, the processor computes in bf16) or int8.
        batch: that the network will always be given.
        batches: inputs to calibrate INT8 with.
    """
    folder.mkdir(parents=True)
    parts = card.output.get("detector", {}).get("parts", ())
    computes = {"f32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
    settings = {"name": runtime, "precision": computes, "threads": 1, "batch": batch}
    replace(card, runtime=settings).write(folder)
    if runtime == "onnxruntime":
        target = folder / "model.onnx"
        if precision == "int8":
            quantize(model, target, batches)
        else:
            shutil.copyfile(model, target)
        fix_batch(target, batch)
        embed_card(target, card)
        for part in parts:
            shutil.copyfile(model.with_name(f"{part}.onnx"), folder / f"{part}.onnx")
        return
    for part in ("model", *parts):
        source = model.with_name(f"{part}.onnx") if parts else model
        write_openvino(source, folder / f"{part}.xml", precision if part == "model" else "f32", batches)


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
