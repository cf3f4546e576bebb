"""Measure a network in Paddle: gradients, weights and activations of each layer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import paddle
from paddle import Tensor, nn

SAMPLES = 1024  # values of each tensor
IMAGES = 8  # samples of a batch whose activations are measured


def sample(tensor: Tensor) -> Tensor:
    """Up to 1,024 values of a tensor, evenly spaced."""
    size = int(tensor.size)
    stride = -(-size // SAMPLES)
    while stride > 1 and (stride % 2 == 0 or stride % 3 == 0):  # or all are from the same place of a 3x3 kernel
        stride += 1
    return tensor.detach().flatten()[::stride].astype("float32")


def is_finite(tensor: Any) -> bool:
    """Whether a tensor has neither NaN nor Inf."""
    return bool(paddle.isfinite(tensor).all())


def leaves(network: nn.Layer) -> list[tuple[str, nn.Layer]]:
    """The layers that hold no others, by name."""
    return [(name, layer) for name, layer in network.named_sublayers(include_self=True) if not list(layer.children())]


class PaddleLayers:
    """`src.kit.training.Layers` of a `paddle.nn.Layer`."""

    def __init__(self, network: nn.Layer) -> None:
        self.network = network
        trained = [(name, each) for name, each in network.named_parameters() if not each.stop_gradient]
        self.names: Sequence[str] = [name for name, _ in trained]
        self.parameters = [each for _, each in trained]
        self.on_cpu = not paddle.get_device().startswith("gpu")
        self.none = paddle.zeros([1])
        self.handles: list[Any] = []

    def grads(self) -> list[Tensor]:
        """Gradients; of weights that the batch did not need, a zero."""
        return [self.none if each.grad is None else each.grad for each in self.parameters]

    def gradient_norms(self) -> Tensor:
        with paddle.no_grad():  # Paddle's own clipping uses this kernel; a public norm takes thirty times as long
            squares = [paddle._C_ops.squared_l2_norm(each) for each in self.grads()]
            total = paddle.concat(squares)
            return (total if total.dtype == paddle.float32 else total.astype("float32")).sqrt()

    def gradients(self) -> tuple[np.ndarray, list[np.ndarray]]:
        grads = self.grads()
        with paddle.no_grad():
            parts = [each for grad in grads for each in (grad.mean(), grad.min(), grad.max(), grad.sum())]
            mean, least, most, total = paddle.stack(parts).astype("float32").numpy().reshape([-1, 4]).T
            # Paddle's extremes skip NaN, sums do not
            largest = np.where(np.isnan(total), total, np.maximum(np.abs(least), np.abs(most)))
            shares = [
                0.0 if fine else 1 - float(paddle.isfinite(grad).astype("float32").mean())
                for grad, fine in zip(grads, np.isfinite(largest), strict=True)
            ]
        return np.stack([mean, largest, np.array(shares, np.float32)], axis=1), self.sampled(grads)

    def weights(self) -> list[np.ndarray]:
        return self.sampled(self.parameters)

    def sampled(self, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        """A sample of each, in one copy from the device."""
        with paddle.no_grad():
            parts = [sample(each) for each in tensors]
            values = paddle.concat(parts).numpy()
        return np.split(values, np.cumsum([int(part.size) for part in parts])[:-1])

    def watch(self) -> None:
        self.seen: dict[str, Tensor] = {}

        def hook(name: str, module: nn.Layer, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and int(output.size):
                with paddle.no_grad():
                    part = output.detach()[:IMAGES].astype("float32")
                    self.seen[name] = paddle.stack([part.mean(), (part == 0).astype("float32").mean()])

        layers = leaves(self.network)
        self.handles = [layer.register_forward_post_hook(partial(hook, name)) for name, layer in layers]

    def activations(self) -> dict[str, tuple[float, float]]:
        while self.handles:
            self.handles.pop().remove()
        if not self.seen:
            return {}
        values = paddle.stack(list(self.seen.values())).numpy().tolist()
        return {name: (mean, zeros) for name, (mean, zeros) in zip(self.seen, values, strict=True)}

    def first_not_finite(self, forward: Callable[[], Any]) -> str:
        for name, parameter in self.network.named_parameters():
            if not is_finite(parameter):
                return f"the weights {name}"
        found: list[str] = []

        def hook(name: str, module: nn.Layer, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not is_finite(output):
                fine = all(is_finite(each) for each in inputs if isinstance(each, Tensor))
                found.append(f"the output of {name}" if fine else "the input")

        handles = [layer.register_forward_post_hook(partial(hook, name)) for name, layer in leaves(self.network)]
        try:
            with paddle.no_grad():
                forward()
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else ""

    def fetch(self, tensors: Sequence[Tensor]) -> np.ndarray:
        array: np.ndarray = paddle.stack(list(tensors)).astype("float32").numpy()
        return array

    def device_bytes(self) -> int:
        return 0 if self.on_cpu else int(paddle.device.cuda.memory_allocated())
