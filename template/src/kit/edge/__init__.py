"""Make an exported network smaller and faster, and measure what that costs: INT8, runtimes, TensorRT's commands."""

from src.kit.edge.quantization import quantize

__all__ = ["quantize"]
