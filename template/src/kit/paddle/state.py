"""Paddle weights to and from NumPy with PyTorch's names and layouts (see `src/kit/weights/files.py`)."""

from collections.abc import Iterator, Mapping

import numpy as np

import paddle
from paddle import nn
from src.kit.weights import check


def to_numpy(network: nn.Layer) -> dict[str, np.ndarray]:
    """A copy of every parameter and BatchNorm statistic as float32, in the network's order."""
    return {
        name: _turned(np.array(tensor.astype("float32").numpy()), transposed)
        for name, tensor, transposed in _named(network)
    }


def from_numpy(network: nn.Layer, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the network, whatever its device and dtype.

    Raises:
        UserError: a name or a shape differs; nothing was copied.
    """
    own = list(_named(network))
    check(arrays, {name: tuple(tensor.shape[::-1] if transposed else tensor.shape) for name, tensor, transposed in own})
    for name, tensor, transposed in own:
        tensor.set_value(paddle.to_tensor(_turned(arrays[name], transposed)).astype(tensor.dtype))


def _named(network: nn.Layer) -> Iterator[tuple[str, paddle.Tensor, bool]]:
    """PyTorch's name, the tensor, and whether it is a Linear weight: Paddle keeps (in, out), PyTorch (out, in)."""
    linear = {f"{name}.weight" for name, layer in network.named_sublayers() if isinstance(layer, nn.Linear)}
    for name, tensor in network.state_dict().items():
        torch_name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        yield torch_name, tensor, name in linear


def _turned(array: np.ndarray, transposed: bool) -> np.ndarray:
    return np.ascontiguousarray(array.T) if transposed else array
