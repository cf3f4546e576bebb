"""The leaf layers of a Paddle network, as `src/kit/report/model_graph.py` draws them."""

import math
from typing import Any

import paddle
from paddle import nn


def list_layers(network: nn.Layer, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for each leaf layer in the order in which an input of `shape` (1, C, H, W) passes them."""
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Layer) -> Any:
        def hook(module: nn.Layer, inputs: Any, output: Any) -> None:
            if not isinstance(output, paddle.Tensor):  # such as lists of boxes
                return
            # BatchNorm's running statistics are parameters that Paddle does not train
            count = sum(math.prod(each.shape) for each in layer.parameters() if not each.stop_gradient)
            output_shape = tuple(output.shape)
            rows.append({"name": name, "type": type(layer).__name__, "output_shape": output_shape, "parameters": count})

        return layer.register_forward_post_hook(hook)

    handles = [add(name, layer) for name, layer in network.named_sublayers() if not list(layer.children())]
    network.eval()
    with paddle.no_grad():
        network(paddle.zeros(list(shape)))
    for handle in handles:
        handle.remove()
    return rows
