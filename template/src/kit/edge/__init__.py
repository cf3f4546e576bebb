"""Make an exported network smaller and faster: INT8, OpenVINO, TensorRT's commands."""

from src.kit.edge.quantization import arithmetic_nodes, embed_card, quantize
from src.kit.edge.runtimes import convert, write_tensorrt

__all__ = ["arithmetic_nodes", "convert", "embed_card", "quantize", "write_tensorrt"]
