"""Weights as `.safetensors` with PyTorch's names, for both frameworks."""

from src.kit.weights import files
from src.kit.weights.files import check, load_metadata

__all__ = ["check", "files", "load_metadata"]
