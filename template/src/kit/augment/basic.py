"""The "basic" augmentation: shifted and mirrored images. Whole batches, no loops."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def shift_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`shift` uint8 (B, C, H, W), and mirror half of the images left to right."""
    return flip(shift(images, rng), rng)


def shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each image of uint8 (B, C, H, W) by up to an eighth of the height (4 pixels of 32) both ways.

    What comes in is black: the random crop of a padded image, https://arxiv.org/abs/1512.03385.
    """
    batch, channels, height, width = images.shape
    most = max(1, height // 8)
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
