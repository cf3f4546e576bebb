"""Measure a network in PyTorch: gradients, weights and activations of each layer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SAMPLES = 1024  # values of each tensor
IMAGES = 8  # samples of a batch whose activations are measured


def sample(tensor: Tensor) -> Tensor:
    """Up to 1,024 values of a dense tensor, evenly spaced in memory, in whatever order it has its axes."""
    stride = -(-tensor.numel() // SAMPLES)
    while stride > 1 and (stride % 2 == 0 or stride % 3 == 0):  # or all are from the same place of a 3x3 kernel
        stride += 1
    return tensor.detach().as_strided((-(-tensor.numel() // stride),), (stride,)).float()


def leaves(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that hold no others, by name."""
    return [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]


class TorchLayers:
    """`src.kit.training.Layers` of a `torch.nn.Module`."""

    def __init__(self, network: nn.Module, compiled: bool = False) -> None:
        """Activations of a compiled network are not measured: recording them would compile it again."""
        self.network, self.compiled = network, compiled
        trained = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
        self.names: Sequence[str] = [name for name, _ in trained]
        self.parameters = [each for _, each in trained]
        self.device = self.parameters[0].device
        self.on_cpu = self.device.type == "cpu"
        self.none = torch.zeros(1, device=self.device)
        self.handles: list[Any] = []

    def grads(self) -> list[Tensor]:
        """Gradients; of weights that the batch did not need, a zero."""
        return [self.none if each.grad is None else each.grad for each in self.parameters]

    def gradient_norms(self) -> Tensor:
        return torch.stack(torch._foreach_norm(self.grads()))  # a few kernels for all tensors

    def gradients(self) -> tuple[np.ndarray, list[np.ndarray]]:
        grads = self.grads()
        rows = [torch.stack([each.mean(), *each.aminmax()]) for each in grads]
        mean, least, most = torch.stack(rows).float().cpu().numpy().T
        largest = np.maximum(np.abs(least), np.abs(most))  # NaN if one is
        finite = np.isfinite(largest)
        pairs = zip(grads, finite, strict=True)
        shares = [0.0 if fine else 1 - torch.isfinite(each).float().mean().item() for each, fine in pairs]
        return np.stack([mean, largest, np.array(shares, np.float32)], axis=1), self.sampled(grads)

    def weights(self) -> list[np.ndarray]:
        return self.sampled(self.parameters)

    def sampled(self, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        """A sample of each, in one copy from the device."""
        parts = [sample(each) for each in tensors]
        values = torch.cat(parts).cpu().numpy()
        return np.split(values, np.cumsum([len(part) for part in parts])[:-1])

    def watch(self) -> None:
        self.seen: dict[str, Tensor] = {}

        def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                part = output.detach()[:IMAGES]
                zeros = 1 - torch.count_nonzero(part) / part.numel()
                self.seen[name] = torch.stack([part.float().mean(), zeros])

        layers = [] if self.compiled else leaves(self.network)
        self.handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in layers]

    def activations(self) -> dict[str, tuple[float, float]]:
        while self.handles:
            self.handles.pop().remove()
        if not self.seen:
            return {}
        values = torch.stack(list(self.seen.values())).cpu().tolist()
        return {name: (mean, zeros) for name, (mean, zeros) in zip(self.seen, values, strict=True)}

    def first_not_finite(self, forward: Callable[[], Any]) -> str:
        for name, parameter in self.network.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                return f"the weights {name}"
        found: list[str] = []

        def hook(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                fine = all(bool(torch.isfinite(each).all()) for each in inputs if isinstance(each, Tensor))
                found.append(f"the output of {name}" if fine else "the input")

        handles = [layer.register_forward_hook(partial(hook, name)) for name, layer in leaves(self.network)]
        try:
            with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                forward()
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else ""

    def fetch(self, tensors: Sequence[Tensor]) -> np.ndarray:
        array: np.ndarray = torch.stack(list(tensors)).float().cpu().numpy()
        return array

    def device_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else 0
