"""Export a trained network to files that other programs run: ONNX, and the framework's own format.

A network whose forward chooses by values, such as a detector, cannot be one graph. It has a method
`export_parts(shape)`: name -> (module, shape of its input), and the settings of the code that joins the parts.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["FORMATS", "export_network"]

FORMATS = {"lightning": ("onnx", "torch"), "paddle": ("onnx", "paddle")}  # framework -> what it can write
REGIONS = {"boxes": 7, "masks": 14}  # parts that take regions of this side, which are pooled from feature maps


def export_network(
    network: Any, framework: str, shape: Sequence[int], folder: Path, formats: Sequence[str] = ("onnx",)
) -> dict[str, Any]:
    """Write `folder/model.*` and, for a network in parts, `folder/<part>.*`.

    Args:
        network: on the CPU.
        shape: (C, H, W) of its input; the batch may have any size.
        formats: of `FORMATS`.

    Returns:
        The card's `output["detector"]`: how the parts are joined. Empty if there is one part.

    Raises:
        UserError: the framework cannot export the network.
    """
    export_part = import_module(f"src.kit.{framework}.onnx_export").export_part
    network.eval()
    in_parts = hasattr(network, "export_parts")
    parts, detector = network.export_parts(shape) if in_parts else ({"model": (network, shape)}, {})
    for name, (module, part_shape) in parts.items():
        export_part(module, part_shape, folder, name, formats)
        if name in REGIONS and "onnx" in formats:
            import onnx

            from src.kit.inference_scenes_detectors import add_region_pooling

            path = folder / f"{name}.onnx"
            path.write_bytes(add_region_pooling(onnx.load(path), REGIONS[name]).SerializeToString())
    return {**detector, "parts": [name for name in parts if name != "model"]} if detector else {}
