"""Paddle networks: weights to and from NumPy, initial values as in PyTorch, and their layers for the report."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import paddle
from paddle import nn
from paddle.nn import initializer
from src.kit.weights import check_shapes


def weights_to_numpy(network: nn.Layer) -> dict[str, np.ndarray]:
    """Copy every parameter and BatchNorm statistic to float32, under PyTorch's names, in the network's order."""
    return {
        name: transpose_linear(np.array(tensor.astype("float32").numpy()), transposed)
        for name, tensor, transposed in name_weights(network)
    }


def weights_from_numpy(network: nn.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` with PyTorch's names and layouts into the network, on any device and in any dtype.

    Raises:
        UserError: a name or a shape differs; nothing is copied then.
    """
    own = list(name_weights(network))
    check_shapes(
        arrays, {name: tuple(tensor.shape[::-1] if transposed else tensor.shape) for name, tensor, transposed in own}
    )
    for name, tensor, transposed in own:
        tensor.set_value(paddle.to_tensor(transpose_linear(arrays[name], transposed)).astype(tensor.dtype))


def name_weights(network: nn.Layer) -> Iterator[tuple[str, paddle.Tensor, bool]]:
    """Yield PyTorch's name, the tensor, and whether it is a Linear weight, (out, in) in PyTorch."""
    linear = {f"{name}.weight" for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)}
    for name, tensor in network.state_dict().items():
        torch_name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        yield torch_name, tensor, name in linear


def transpose_linear(array: np.ndarray, transposed: bool) -> np.ndarray:
    """Swap the axes of a Linear layer's weight; leave other arrays."""
    return np.ascontiguousarray(array.T) if transposed else array


def initialise_like_torch(network: nn.Layer) -> nn.Layer:
    """Draw a network's initial weights from PyTorch's distributions, in place.

    Convolutions: Kaiming-normal by fan-out (He et al. 2015, arXiv 1502.01852). Linear layers: uniform +-1/sqrt(in).
    Paddle would draw convolutions by fan-in and linear layers by Xavier's rule, with zero biases. With equal starts the
    same configuration trains alike in both frameworks, and a learning rate found in one serves the other.
    """
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            initializer.KaimingNormal(mode="fan_out")(layer.weight)
            if layer.bias is not None:
                initializer.Constant(0.0)(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.weight.shape[0])
            initializer.Uniform(-bound, bound)(layer.weight)
            initializer.Uniform(-bound, bound)(layer.bias)
    return network


def list_layers(network: nn.Layer, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """List the leaf layers in the order in which an input of `shape` (1, C, H, W) passes them.

    Returns:
        A row for each: name, type, output_shape and number of parameters, for `src/kit/report`.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Layer) -> Any:
        def hook(module: nn.Layer, inputs: Any, output: Any) -> None:
            if not isinstance(output, paddle.Tensor):  # lists of boxes, for example
                return
            # to Paddle BatchNorm's statistics are parameters, which it does not train
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
