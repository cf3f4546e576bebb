"""Weights that belong to no framework: NumPy arrays under PyTorch's names and layouts, in `.safetensors` files."""

from src.kit.weights.files import (
    IMAGENET_CLASSES,
    adapt_stem,
    check_shapes,
    count_classes,
    download_weights,
    load_metadata,
    load_weights,
    missing_weights,
    save_weights,
)

__all__ = [
    "IMAGENET_CLASSES",
    "adapt_stem",
    "check_shapes",
    "count_classes",
    "download_weights",
    "load_metadata",
    "load_weights",
    "missing_weights",
    "save_weights",
]
