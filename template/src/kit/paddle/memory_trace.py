"""Trace the allocations of two training steps in Paddle from its own list of operations: no GPU, nothing is computed.

A value lives until the last operation that reads it, as in Paddle's dynamic graph, where autograd keeps exactly what
the backward operations read. `clear_grad` fills gradients with zeros and keeps their memory, so that the next step
makes each gradient a second time. Moments and velocities are float32, and Adam's powers of beta stay in RAM.
"""

import os
from collections.abc import Sequence

from omegaconf import DictConfig

os.environ.setdefault("GLOG_minloglevel", "2")  # before Paddle loads: silences its warnings of static programs
from src.kit.memory import DataShape, Recorder, Trace, convolution_workspace
from src.kit.paddle.memory_measured import (
    STEPS,
    Measured,
    measure_loss,
    record_measured,
    record_update,
    trace_measured_steps,
)
from src.kit.paddle.memory_program import Casts, Program, StaticNetwork, copy_of, find_casts, on_cpu, size_of

HALF_PRECISION = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
# operations whose output is a view of the input or overwrites it
VIEWS = {"reshape", "flatten", "squeeze", "unsqueeze", "transpose", "slice", "split", "unbind", "share_data_", "add_n"}
# operations whose backward pass needs the shapes of its inputs and not their values
SHAPES = {"add", "subtract", "mean", "sum", "concat", "pad3d", "dropout", "stack", "reshape", "flatten", "transpose"}
SHAPES |= {"squeeze", "unsqueeze", "split", "scale"}
CONVOLUTIONS = ("conv2d", "conv2d_grad")  # depthwise ones have their own kernels


@on_cpu()
def trace_steps(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two optimizer steps of the configured training for each batch size."""
    if cfg.loss.name == "network":  # its operations depend on values
        return trace_measured_steps(cfg, shape, batches)
    network = StaticNetwork(cfg, shape)
    kind = HALF_PRECISION.get(cfg.trainer.precision)
    traces = []
    for batch in batches:
        program = network.build_program(batch)
        casts = find_casts(program, kind) if kind else Casts()
        loss = None
        if shape.objects:
            loss = measure_loss(cfg, shape, batch, network.outputs, "float16" if kind else "float32")
        traces.append(record_steps(cfg, program, casts, loss))
    return traces


def record_steps(cfg: DictConfig, program: Program, casts: Casts, loss: Measured | None) -> Trace:
    """Record two steps of a program and, if given, a loss that is not part of it."""
    recorder = Recorder()
    for value in (*program.parameters, *program.buffers):
        recorder.allocate(program.sizes[value], "parameters")
    sizes = [program.sizes[value] for value in program.gradients]
    for step in range(STEPS):
        record_step(recorder, program, casts, loss, keep=step == 0)
        record_update(recorder, cfg, sizes, first=step == 0)
    return recorder.trace()


def record_step(recorder: Recorder, program: Program, casts: Casts, loss: Measured | None, keep: bool) -> None:
    """Record both passes of one batch; `keep` the gradients, or add them to existing ones and free them."""
    owner = memory_owners(program)
    last = last_reads(program, owner, casts)
    held = {value: recorder.allocate(program.sizes[value], "data") for value in program.data}
    fixed = {*program.parameters, *program.buffers, *program.data}
    finals = {owner[value] for value in program.gradients.values()}
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
