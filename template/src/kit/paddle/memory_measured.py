"""Measure what a loss, or a network with its own losses, takes on the CPU.

Where the sizes depend on values, as in the assignment of cells to objects, Paddle's list of operations has none: there
the code runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig
from src.kit.paddle.optimizer import build_optimizer

import paddle
from paddle.base import core
from src.kit.memory import DataShape, Recorder, Trace, example_targets
from src.kit.paddle.memory_program import without_weights
from src.kit.training import build_loss, build_model

STEPS = 2  # the second one has the optimizer's state
PIECES = 64  # blocks that a measured total is split into: one large block would fit nowhere


@dataclass(frozen=True)
class Measured:
    """Bytes above those at the start: `kept` for the backward pass, and the peaks of `forward` and `backward`."""

    kept: int
    forward: int
    backward: int


@dataclass(frozen=True)
class Step:
    """Bytes of each weight, of each trained weight and of each of a batch's arrays, and what their activations take."""

    weights: list[int]
    trained: list[int]
    data: list[int]
    activations: Measured


def measure(compute: Callable[[], paddle.Tensor]) -> Measured:
    """Run a forward pass, which returns a loss, and its backward pass on the CPU."""
    start = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    value = compute()
    kept = core.host_memory_stat_current_value("Allocated", 0) - start
    forward = core.host_memory_stat_peak_value("Allocated", 0) - start
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    value.backward()
    return Measured(kept, forward, core.host_memory_stat_peak_value("Allocated", 0) - start)


def measure_loss(cfg: DictConfig, shape: DataShape, batch: int, outputs: Any, kind: str) -> Measured:
    """What the configured loss takes for noise.

    Args:
        outputs: arrays with the shapes of one image's outputs.
        kind: dtype of the noise, "float16" or "float32".
    """
    noises = paddle.utils.map_structure(lambda output: noise(batch, output.shape).astype(kind), outputs)
    for value in paddle.utils.flatten(noises):
        value.stop_gradient = False
    arrays = list(map(paddle.to_tensor, example_targets(cfg.task, shape, batch)))
    loss = build_loss(cfg, shape.class_counts())
    return measure(lambda: loss(noises, *arrays))


def measure_network(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Step]:
    """Run steps of a network that receives the targets, in 32 bits, for each batch size."""
    paddle.seed(0)  # proposals depend on the weights
    network = build_model(without_weights(cfg), shape.classes, shape.channels, shape.image_size, **shape.arguments)
    network.train()
    loss = build_loss(cfg, shape.class_counts())
    trained = [value for value in network.parameters() if not value.stop_gradient]
    for value in trained:
        value.grad = paddle.zeros_like(value)  # as in every step but the first
    steps = []
    for batch in batches:
        data = [noise(batch, (shape.channels, shape.image_size, shape.image_size))]
        data += map(paddle.to_tensor, example_targets(cfg.task, shape, batch))
        weights = [*network.parameters(), *network.buffers()]
        activations = measure(partial(forward_pass, network, loss, data))
        steps.append(Step(sizes(weights), sizes(trained), sizes(data), activations))
    return steps


def sizes(values: Sequence[paddle.Tensor]) -> list[int]:
    """Bytes of each tensor."""
    return [value.size * value.element_size() for value in values]


def forward_pass(
    network: paddle.nn.Layer, loss: Callable[..., paddle.Tensor], data: list[paddle.Tensor]
) -> paddle.Tensor:
    """The loss of a batch (images, *targets)."""
    return loss(network(*data), *data[1:])


def noise(batch: int, shape: Sequence[int]) -> paddle.Tensor:
    """Noise float32 (batch, *shape), the same for every image, so that each passes a test equally often."""
    one = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    return paddle.to_tensor(np.repeat(one, batch, axis=0))


def trace_measured_steps(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two steps of a network with its own losses, whose activations are known as a total only."""
    traces = []
    for network in measure_network(cfg, shape, batches):
        recorder = Recorder()
        for kind, blocks in (("parameters", network.weights), ("gradients", network.trained)):
            for size in blocks:
                recorder.allocate(size, kind)
        for step in range(STEPS):
            data = [recorder.allocate(size, "data") for size in network.data]
            for block in [*record_measured(recorder, network.activations), *data]:
                recorder.free(block)
            record_update(recorder, cfg, network.trained, first=step == 0)
        traces.append(recorder.trace())
    return traces


def record_measured(recorder: Recorder, measured: Measured, others: int = 0) -> list[int]:
    """Record both passes, minus `others` bytes that are recorded elsewhere; returns the blocks to free afterwards."""
    kept = [recorder.allocate(measured.kept // PIECES) for _ in range(PIECES)]
    recorder.allocate_briefly(measured.forward - measured.kept, "activations")
    recorder.allocate_briefly(measured.backward - measured.kept - others, "activations")
    return kept


def record_update(recorder: Recorder, cfg: DictConfig, trained: Sequence[int], first: bool) -> None:
    """Record the optimizer's step for weights of these sizes; the `first` one allocates its state."""
    if cfg.trainer.gradient_clip_val:
        for block in [recorder.allocate(size, "workspace") for size in trained]:
            recorder.free(block)
    if first:
        for size in list(trained) * count_optimizer_states(cfg):
            recorder.allocate(size, "optimizer")


def count_optimizer_states(cfg: DictConfig) -> int:
    """How many tensors of a parameter's size the configured optimizer keeps for it, such as momentum."""
    with paddle.utils.unique_name.guard():  # names count what a process has made
        zero = paddle.ParamAttr(initializer=paddle.nn.initializer.Constant(0.0))  # draws no random numbers
        layer = paddle.nn.Linear(2, 3, weight_attr=zero, bias_attr=False)
        optimizer = build_optimizer(cfg, layer)
        layer(paddle.ones([1, 2])).sum().backward()
        optimizer.step()
        states = [value for value in optimizer.state_dict().values() if isinstance(value, paddle.Tensor)]
    return sum(value.shape == layer.weight.shape for value in states)
