"""The leaf layers of a PyTorch network, as `src/kit/report/model_graph.py` draws them."""

from typing import Any

import torch
from torch import nn


def list_layers(network: nn.Module, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each leaf layer in the order in which an input of `shape` (1, C, H, W) passes them."""
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):  # such as lists of boxes
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
