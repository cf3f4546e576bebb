"""Export a PyTorch network as a `torch.export` program and as ONNX."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from src.kit.errors import UserError

__all__ = ["export_part"]


def export_part(network: nn.Module, shape: Sequence[int], folder: Path, name: str, formats: Sequence[str]) -> None:
    """Write `folder/name.pt2`, which `torch.export.load` reads without the project's code, and `folder/name.onnx`.

    Args:
        network: on the CPU; it is set to evaluation mode.
        shape: of its float32 input, without the batch, which may have any size.
        formats: "torch" and "onnx".

    Raises:
        UserError: PyTorch cannot export the network.
    """
    batch = {0: torch.export.Dim("batch", min=1)}
    # two samples: a size of 1 would be taken for a constant. Zeros are valid codes of categories, too.
    example = torch.zeros(2, *shape)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations within PyTorch
            program = torch.export.export(network.eval(), (example,), dynamic_shapes=(batch,), strict=False)
            if "torch" in formats:
                torch.export.save(program, folder / f"{name}.pt2")
            if "onnx" in formats:
                save_onnx(program, folder / f"{name}.onnx")
    except OSError:  # a full disk, which says nothing about the network
        raise
    except Exception as error:  # torch.export raises many kinds
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"PyTorch cannot export {type(network).__name__} ({reason}): its forward must not choose by values."
        ) from error


def save_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Convert a program to ONNX: "input" -> "output", or "output0" and so on."""
    count = len(program.graph_signature.user_outputs)
    names = ["output"] if count == 1 else [f"output{place}" for place in range(count)]
    chatty = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=["input"],
            output_names=names,
            dynamic_shapes=({0: "batch"},),  # else the axis is called s31 or so
            verbose=False,
        )
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # half a megabyte of the exporter's notes
    path.write_bytes(model.SerializeToString())
