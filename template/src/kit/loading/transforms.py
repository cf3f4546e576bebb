"""What is done to every batch of images on its way to the network: resize, normalise."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def normalize(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 (B, C, H, W) -> float32 (B, C, H, W), a new array: `(x / 255 - mean) / std` for each channel."""
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, np.float32))
    offset = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    out = np.multiply(images, scale[:, None, None], dtype=np.float32, order="C")
    out -= offset[:, None, None]
    return out


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (B, C, H, W) to `size` = (height, width): bilinear, averaging where it shrinks."""
    if images.shape[2:] == size:
        return images
    out = np.empty((*images.shape[:2], *size), np.uint8)
    for before, after in zip(images.reshape(-1, *images.shape[2:]), out.reshape(-1, *size), strict=True):
        after[:] = Image.fromarray(before).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return out
