"""What a loss, or a network that has its own losses, takes on the CPU: where Paddle must run to know, it runs.

Paddle's list of operations has no sizes where these depend on values, as in the assignment of cells to objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig

import paddle
from paddle.base import core
from src.kit.memory import Recorder, Shape, Trace, make_targets
from src.kit.paddle.memory_program import fresh
from src.kit.training import build_loss, build_model

STATES = {"adamw": 2, "sgd": 1}  # tensors of a parameter's size
STEPS = 2
PIECES = 64  # that what was measured as a whole is taken to consist of: one large block would be hard to place


@dataclass(frozen=True)
class Measured:
    """Bytes above those at the start: `kept` for the backward pass, and the most in either pass."""

    kept: int
    forward: int
    backward: int


@dataclass(frozen=True)
class Step:
    """Bytes of each weight, of those that are trained, and of a batch's arrays; and all that is made of these."""

    weights: list[int]
    trained: list[int]
    data: list[int]
    activations: Measured


def measure(compute: Callable[[], paddle.Tensor]) -> Measured:
    """Run the forward pass, which returns a loss, and the backward pass, on the CPU."""
    start = core.host_memory_stat_current_value("Allocated", 0)
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    value = compute()
    kept = core.host_memory_stat_current_value("Allocated", 0) - start
    forward = core.host_memory_stat_peak_value("Allocated", 0) - start
    core.host_memory_stat_reset_peak_value("Allocated", 0)
    value.backward()
    return Measured(kept, forward, core.host_memory_stat_peak_value("Allocated", 0) - start)


def measure_loss(cfg: DictConfig, shape: Shape, batch: int, outputs: Any, kind: str) -> Measured:
    """The configured loss, given noise in the place of `outputs`, whose shapes are of one image, and format `kind`."""
    given = paddle.utils.map_structure(lambda output: noise(batch, output.shape).astype(kind), outputs)
    for value in paddle.utils.flatten(given):
        value.stop_gradient = False
    arrays = list(map(paddle.to_tensor, make_targets(cfg.task, shape, batch)))
    loss = build_loss(cfg, shape.counts())
    return measure(lambda: loss(given, *arrays))


def measure_network(cfg: DictConfig, shape: Shape, batches: Sequence[int]) -> list[Step]:
    """Steps of a network that is given its targets, in 32 bits."""
    paddle.seed(0)  # proposals depend on the weights
    network = build_model(fresh(cfg), shape.classes, shape.channels, shape.image_size, **shape.arguments)
    network.train()
    loss = build_loss(cfg, shape.counts())
    trained = [value for value in network.parameters() if not value.stop_gradient]
    for value in trained:
        value.grad = paddle.zeros_like(value)  # as in every step but the first
    found = []
    for batch in batches:
        data = [noise(batch, (shape.channels, shape.image_size, shape.image_size))]
        data += map(paddle.to_tensor, make_targets(cfg.task, shape, batch))
        weights = [*network.parameters(), *network.buffers()]
        found.append(
            Step(sizes(weights), sizes(trained), sizes(data), measure(partial(whole_loss, network, loss, data)))
        )
    return found


def sizes(values: Sequence[paddle.Tensor]) -> list[int]:
    """Bytes of each."""
    return [value.size * value.element_size() for value in values]


def whole_loss(
    network: paddle.nn.Layer, loss: Callable[..., paddle.Tensor], data: list[paddle.Tensor]
) -> paddle.Tensor:
    """Forward pass and loss."""
    return loss(network(*data), *data[1:])


def noise(batch: int, shape: Sequence[int]) -> paddle.Tensor:
    """The same for every image: as many values pass a test."""
    one = np.random.default_rng(0).standard_normal((1, *shape), np.float32)
    return paddle.to_tensor(np.repeat(one, batch, axis=0))


def whole_network(cfg: DictConfig, shape: Shape, batches: Sequence[int]) -> list[Trace]:
    """Both steps of a network with losses of its own, whose activations are one block, as they were measured."""
    found = []
    for network in measure_network(cfg, shape, batches):
        recorder = Recorder()
        for kind, blocks in (("parameters", network.weights), ("gradients", network.trained)):
            for size in blocks:
                recorder.allocate(size, kind)
        for step in range(STEPS):
            data = [recorder.allocate(size, "data") for size in network.data]
            for block in [*measured_events(recorder, network.activations), *data]:
                recorder.free(block)
            update_events(recorder, cfg, network.trained, first=step == 0)
        found.append(recorder.trace())
    return found


def measured_events(recorder: Recorder, found: Measured, others: int = 0) -> list[int]:
    """Forward and backward pass, of which `others` bytes are noted elsewhere; returns the blocks to free thereafter."""
    kept = [recorder.allocate(found.kept // PIECES) for _ in range(PIECES)]
    recorder.brief(found.forward - found.kept, "activations")
    recorder.brief(found.backward - found.kept - others, "activations")
    return kept


def update_events(recorder: Recorder, cfg: DictConfig, trained: Sequence[int], first: bool) -> None:
    """The optimizer's step for weights of these sizes; the first one makes its state."""
    if cfg.trainer.gradient_clip_val:
        for block in [recorder.allocate(size, "workspace") for size in trained]:
            recorder.free(block)
    if first:
        for size in list(trained) * STATES[cfg.optimizer.name]:
            recorder.allocate(size, "optimizer")
