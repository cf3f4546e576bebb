"""PyTorch weights to and from NumPy; the names and layouts of `src/kit/weights/files.py` are PyTorch's own."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from src.kit.weights import check


def to_numpy(network: nn.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter and BatchNorm statistic as float32, in the network's order."""
    # BatchNorm's batch counter has no counterpart in other frameworks and no effect at a fixed momentum.
    return {
        name: tensor.detach().float().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def from_numpy(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the network, whatever its device and dtype.

    Raises:
        UserError: a name or a shape differs; nothing was copied.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    check(arrays, {name: tuple(tensor.shape) for name, tensor in own.items()})
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(arrays[name]))
