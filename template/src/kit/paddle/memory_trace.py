"""Trace the allocations of two training steps in Paddle from its own list of operations: no GPU, nothing is computed.

A value lives until the last operation that reads it, as in Paddle's dynamic graph, where autograd keeps exactly what
the backward operations read. `clear_grad` fills gradients with zeros and keeps their memory, so that the next step
makes each gradient a second time. Moments and velocities are float32, and Adam's powers of beta stay in RAM."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from omegaconf import DictConfig

import paddle
from paddle.base import core
from src.kit.memory import (
    DataShape,
    Recorder,
    SentBuckets,
    Trace,
    convolution_workspace,
    example_targets,
    keeps_buckets,
)
from src.kit.paddle.devices import HALF_PRECISION
from src.kit.paddle.memory_program import (
    Casts,
    Program,
    StaticNetwork,
    copy_of,
    find_casts,
    on_cpu,
    size_of,
    without_weights,
)
from src.kit.paddle.optimizers import build_optimizer
from src.kit.paddle.sharding import STAGES, gathered_bytes, share_out
from src.kit.training import build_loss, build_model

STEPS = 2  # the second one has the optimizer's state
PIECES = 64  # blocks that a measured total is split into: one large block would fit nowhere
# operations whose output is a view of the input or overwrites it
VIEWS = {"reshape", "flatten", "squeeze", "unsqueeze", "transpose", "slice", "split", "unbind", "share_data_", "add_n"}
# operations whose backward pass needs the shapes of its inputs and not their values
SHAPES = {"add", "subtract", "mean", "sum", "concat", "pad3d", "dropout", "stack", "reshape", "flatten", "transpose"}
SHAPES |= {"squeeze", "unsqueeze", "split", "scale"}
CONVOLUTIONS = ("conv2d", "conv2d_grad")  # depthwise ones have their own kernels


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
        copies = SentBuckets(recorder, network.trained if keeps_buckets(cfg) else [])
        for step in range(STEPS):
            data = [recorder.allocate(size, "data") for size in network.data]
            for block in [*record_measured(recorder, network.activations), *data]:
                recorder.free(block)
            for index in range(len(network.trained)):
                copies.take(index)
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


def divide_traces(cfg: DictConfig, shape: DataShape, traces: Sequence[Trace], ranks: int) -> list[Trace]:
    """The traces of the process that keeps the largest part with `trainer.strategy=zero_1`, `zero_2` or `fsdp`.

    Activations stay whole. The state is a tensor of each weight's size after another. Gradients and weights of one size
    are told apart by their order only.
    """
    kinds, stage = count_optimizer_states(cfg), STAGES[cfg.trainer.strategy]
    gathered = gathered_whole(cfg, shape) if stage == 3 else 0
    divided = []
    for trace in traces:
        state = [event for event in trace.events if trace.kinds[event[0]] == "optimizer"]
        sizes = [size for _, size in state[: len(state) // max(kinds, 1)]]
        owners, loads = share_out(sizes, ranks), [0] * ranks
        for size, owner in zip(sizes, owners, strict=True):
            loads[owner] += size
        own = [(size, owner == loads.index(max(loads))) for size, owner in zip(sizes, owners, strict=True)]
        others = {block for (block, _), (_, kept) in zip(state, own * kinds, strict=True) if not kept}
        events = tuple(event for event in trace.events if event[0] not in others)
        if stage > 1:
            events = tuple(free_at_once(events, find_others(trace, "gradients", own[::-1])))
        if stage == 3:
            others = find_others(trace, "parameters", own)
            events = tuple(event for event in events if event[0] not in others)
        first = len(trace.kinds)
        extra = ((first, gathered),) if gathered else ()
        divided.append(Trace((*extra, *events), trace.kinds | {block: "workspace" for block, _ in extra}))
    return divided


def find_others(trace: Trace, kind: str, own: Sequence[tuple[int, bool]]) -> set[int]:
    """Blocks of `kind` that other processes keep; `own` has the bytes of each trained weight, and whether it is kept.

    Blocks come in the weights' order, each weight once or more often; what is not trained is kept.
    """
    others: set[int] = set()
    for size in {size for size, _ in own}:
        kept = [each for other, each in own if other == size]
        blocks = [block for block, bytes_ in trace.events if bytes_ == size and trace.kinds[block] == kind]
        rounds = max(1, len(blocks) // len(kept)) if kind == "gradients" else 1
        others |= {block for block, each in zip(blocks, kept * rounds, strict=False) if not each}
    return others


def free_at_once(events: Sequence[tuple[int, int]], blocks: set[int]) -> Iterator[tuple[int, int]]:
    """The events with some blocks freed as soon as they are allocated."""
    for block, size in events:
        if block not in blocks:
            yield block, size
        elif size >= 0:
            yield from ((block, size), (block, -1))


@on_cpu()
def gathered_whole(cfg: DictConfig, shape: DataShape) -> int:
    """`gathered_bytes` of the configured network."""
    network = build_model(without_weights(cfg), shape.classes, shape.channels, shape.image_size, **shape.arguments)
    return gathered_bytes(network)


@on_cpu()
def trace_steps(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two optimizer steps of the configured training for each batch size."""
    if cfg.loss.name == "network":  # its operations depend on values
        return trace_measured_steps(cfg, shape, batches)
    network = StaticNetwork(cfg, shape)
    kind = HALF_PRECISION.get(cfg.trainer.precision)
    steps = []
    for batch in batches:
        program = network.build_program(batch)
        casts = find_casts(program, kind) if kind else Casts()
        loss = None
        if shape.objects:
            loss = measure_loss(cfg, shape, batch, network.outputs, "float16" if kind else "float32")
        steps.append((program, casts, loss))
    return [record_steps(cfg, *step) for step in steps]  # builds an optimizer, which must not disturb measurements


def record_steps(cfg: DictConfig, program: Program, casts: Casts, loss: Measured | None) -> Trace:
    """Record two steps of a program and, if given, a loss that is not part of it."""
    recorder = Recorder()
    for value in (*program.parameters, *program.buffers):
        recorder.allocate(program.sizes[value], "parameters")
    sizes = [program.sizes[value] for value in program.gradients]
    copies = SentBuckets(recorder, sizes if keeps_buckets(cfg) else [])
    for step in range(STEPS):
        record_step(recorder, program, casts, loss, copies, keep=step == 0)
        record_update(recorder, cfg, sizes, first=step == 0)
    return recorder.trace()


def record_step(
    recorder: Recorder, program: Program, casts: Casts, loss: Measured | None, copies: SentBuckets, keep: bool
) -> None:
    """Record both passes of one batch; `keep` the gradients, or add them to existing ones and free them."""
    owner = memory_owners(program)
    last = last_reads(program, owner, casts)
    held = {value: recorder.allocate(program.sizes[value], "data") for value in program.data}
    fixed = {*program.parameters, *program.buffers, *program.data}
    finals = {owner[value]: index for index, value in enumerate(program.gradients.values())}
    for index, operation in enumerate(program.operations):
        if loss and index == program.forward:
            gradients = {value: size_of(program, casts, value) for value in program.outputs.values()}
            held.update({value: recorder.allocate(size) for value, size in gradients.items()})
            for block in record_measured(recorder, loss, sum(gradients.values())):
                recorder.free(block)
        for value in casts.made.get(index, []):
            held[copy_of(value)] = recorder.allocate(program.sizes[value] // 2)
        if operation.name in CONVOLUTIONS:
            touched = (*operation.inputs, *operation.outputs)
            sizes = [size_of(program, casts, value) for value in touched]
            recorder.allocate_briefly(convolution_workspace(sizes, 1), "workspace")
        for value in operation.outputs:
            if owner[value] == value and value not in fixed:
                kind = "gradients" if value in finals else "activations"
                held[value] = recorder.allocate(size_of(program, casts, value), kind)
                if value in finals:
                    copies.take(finals[value])
        for value in last.get(index, []):
            if value in held and not (keep and value in finals):
                recorder.free(held.pop(value))
    for value, block in held.items():
        if value not in finals:
            recorder.free(block)


def memory_owners(program: Program) -> list[int]:
    """For each value the number of the value whose memory it uses."""
    owner = list(range(len(program.sizes)))
    for operation in program.operations:
        base = operation.name.removesuffix("_grad")
        if operation.name in ("combine", "split") or base in VIEWS or operation.name.endswith("_"):
            sources = operation.inputs[-1:] if operation.name.endswith("_grad") else operation.inputs
            pairs = list(zip(operation.outputs, sources, strict=False))
            for value, source in pairs[1:3] if base == "batch_norm_" else pairs:  # statistics are written in place
                owner[value] = owner[source]
    return owner


def last_reads(program: Program, owner: list[int], casts: Casts) -> dict[int, list[int]]:
    """Operation's index -> the values that no later operation reads."""
    last: dict[int, int] = {}
    for index, operation in enumerate(program.operations):
        backward = index >= program.forward
        if index == program.forward:  # a loss outside the program holds the outputs until its backward pass is over
            last.update({owner[value]: index for value in program.outputs})
        for value in operation.outputs:
            last[owner[value]] = index
        shapes_only = backward and operation.name.removesuffix("_grad") in SHAPES
        for value in operation.inputs[-1:] if shapes_only else operation.inputs:
            copied = value in casts.copies and operation.name.startswith(("conv", "depthwise", "matmul"))
            last[copy_of(value) if copied else owner[value]] = index
    values: dict[int, list[int]] = {}
    for value, index in last.items():
        values.setdefault(index, []).append(value)
    return values
