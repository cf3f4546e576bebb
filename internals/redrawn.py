"""Weights for tests in which two networks must agree: initial ones are too small to show a difference."""

from collections.abc import Mapping

import numpy as np


def redrawn(arrays: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights drawn by fan-in, so that outputs stay near 1, and lively biases and BatchNorm statistics."""
    random = np.random.default_rng(seed)
    result = {}
    for name, array in arrays.items():
        noise = random.standard_normal(array.shape, dtype=np.float32)
        if name.endswith("running_var"):
            result[name] = 1 + 0.3 * np.abs(noise)
        elif array.ndim > 1:
            result[name] = noise * np.sqrt(2 / np.prod(array.shape[1:], dtype=np.float32))
        else:
            result[name] = array + 0.1 * noise
    return result
