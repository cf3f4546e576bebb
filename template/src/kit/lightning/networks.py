"""PyTorch networks: weights to and from NumPy, and their layers for the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from src.kit.weights import check_shapes


def weights_to_numpy(network: nn.Module) -> dict[str, np.ndarray]:
    """Copy every parameter and BatchNorm statistic to float32, in the network's order."""
    # BatchNorm's batch counter has no counterpart in Paddle and no effect at a fixed momentum
    return {
        name: tensor.detach().float().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def weights_from_numpy(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the network, on any device and in any dtype.

    Raises:
        UserError: a name or a shape differs; nothing is copied then.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    check_shapes(arrays, {name: tuple(tensor.shape) for name, tensor in own.items()})
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(arrays[name]))


def list_layers(network: nn.Module, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """List the leaf layers in the order in which an input of `shape` (1, C, H, W) passes them.

    Returns:
        A row for each: name, type, output_shape and number of parameters, for `src/kit/report`.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):  # lists of boxes, for example
                return
            count = sum(parameter.numel() for parameter in layer.parameters())
            output_shape = tuple(output.shape)
            rows.append({"name": name, "type": type(layer).__name__, "output_shape": output_shape, "parameters": count})

        return layer.register_forward_hook(hook)

    handles = [add(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(shape))
    for handle in handles:
        handle.remove()
    return rows
