"""What is done to a batch of images on its way to the network: resize, augment, normalise. Whole batches, no loops."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

AUGMENTATIONS = ("none", "shift", "shift_flip")


def augment(images: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Apply one of `AUGMENTATIONS` to uint8 (B, C, H, W), each image by its own random amount.

    "shift" moves by up to an eighth of the height (4 pixels of 32) both ways and fills with black: the random crop of
    a padded image, https://arxiv.org/abs/1512.03385. "shift_flip" also mirrors half of the images left to right.
    """
    if name == "none":
        return images
    moved = shift(images, max(1, images.shape[2] // 8), rng)
    return flip(moved, rng) if name == "shift_flip" else moved


def shift(images: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Move each image of (B, C, H, W) by up to `most` pixels up or down and left or right."""
    batch, channels, height, width = images.shape
    padded = np.zeros((batch, channels, height + 2 * most, width + 2 * most), np.uint8)
    padded[:, :, most:-most, most:-most] = images
    windows = sliding_window_view(padded, (1, channels, height, width))  # (B, 1, moves, moves, 1, C, H, W)
    top, left = rng.integers(0, 2 * most + 1, (2, batch))
    return windows[np.arange(batch), 0, top, left, 0]


def flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror each image of (B, C, H, W) left to right with probability 1/2, in place."""
    mirrored = rng.random(len(images)) < 0.5
    images[mirrored] = images[mirrored][..., ::-1]
    return images


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
    rows, columns = weights(images.shape[2], size[0]), weights(images.shape[3], size[1])
    return np.rint(rows @ images.astype(np.float32) @ columns.T).astype(np.uint8)


@cache
def weights(before: int, after: int) -> np.ndarray:
    """float32 (after, before): how much each old pixel counts for each new one, by a triangle filter."""
    ratio = before / after
    centres = (np.arange(after) + 0.5) * ratio
    distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(ratio, 1.0)
    triangle = np.clip(1.0 - distance, 0.0, None)
    return (triangle / triangle.sum(axis=1, keepdims=True)).astype(np.float32)
