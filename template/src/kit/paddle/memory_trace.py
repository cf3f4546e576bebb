"""Events of two training steps in Paddle, from its own list of operations: nothing is computed and no GPU is needed.

A value lives until the last operation that reads it, as in Paddle's dynamic graph, where autograd keeps exactly what
the backward operations read. `clear_grad` fills gradients with zeros and keeps their memory, so that the next step
makes each gradient a second time. Moments and velocities are float32, and Adam's powers of beta stay in RAM.
"""

import os
from collections.abc import Sequence

from omegaconf import DictConfig

os.environ.setdefault("GLOG_minloglevel", "2")  # before Paddle is loaded: its own warnings of static programs
from src.kit.memory import Recorder, Shape, Trace, convolution
from src.kit.paddle.memory_measured import STEPS, Measured, measure_loss, measured_events, update_events, whole_network
from src.kit.paddle.memory_program import Network, on_cpu
from src.kit.paddle.memory_values import Casts, Program, cast, copy_of, size_of

KINDS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
# their output is a view of the input, or is written over it
VIEWS = {"reshape", "flatten", "squeeze", "unsqueeze", "transpose", "slice", "split", "unbind", "share_data_", "add_n"}
# backward operations that need the shape of what they are given and not its values
SHAPES = {"add", "subtract", "mean", "sum", "concat", "pad3d", "dropout", "stack", "reshape", "flatten", "transpose"}
SHAPES |= {"squeeze", "unsqueeze", "split", "scale"}
CONVOLUTIONS = ("conv2d", "conv2d_grad")  # depthwise ones have kernels of their own


@on_cpu()
def traces(cfg: DictConfig, shape: Shape, batches: Sequence[int]) -> list[Trace]:
    """The events of two optimizer steps of the configured training, for each batch size."""
    if cfg.loss.name == "network":  # what it does depends on values
        return whole_network(cfg, shape, batches)
    network = Network(cfg, shape)
    kind = KINDS.get(cfg.trainer.precision)
    found = []
    for batch in batches:
        program = network.program(batch)
        casts = cast(program, kind) if kind else Casts()
        loss = (
            measure_loss(cfg, shape, batch, network.outputs, "float16" if kind else "float32")
            if shape.objects
            else None
        )
        found.append(record(cfg, program, casts, loss))
    return found


def record(cfg: DictConfig, program: Program, casts: Casts, loss: Measured | None) -> Trace:
    """Both steps of one program, with a loss that is no part of it."""
    recorder = Recorder()
    for value in (*program.parameters, *program.buffers):
        recorder.allocate(program.sizes[value], "parameters")
    sizes = [program.sizes[value] for value in program.gradients]
    for step in range(STEPS):
        step_events(recorder, program, casts, loss, keep=step == 0)
        update_events(recorder, cfg, sizes, first=step == 0)
    return recorder.trace()


def step_events(recorder: Recorder, program: Program, casts: Casts, loss: Measured | None, keep: bool) -> None:
    """Forward and backward pass of one batch; `keep` its gradients, or add them to those that are there."""
    owner = owners(program)
    last = last_reads(program, owner, casts)
    held = {value: recorder.allocate(program.sizes[value], "data") for value in program.data}
    fixed = {*program.parameters, *program.buffers, *program.data}
    finals = {owner[value] for value in program.gradients.values()}
    for index, operation in enumerate(program.operations):
        if loss and index == program.forward:
            backs = {back: size_of(program, casts, back) for back in program.outputs.values()}
            held.update({back: recorder.allocate(size) for back, size in backs.items()})
            for block in measured_events(recorder, loss, sum(backs.values())):
                recorder.free(block)
        for value in casts.made.get(index, []):
            held[copy_of(value)] = recorder.allocate(program.sizes[value] // 2)
        if operation.name in CONVOLUTIONS:
            touched = (*operation.inputs, *operation.outputs)
            recorder.brief(convolution([size_of(program, casts, value) for value in touched], 1), "workspace")
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


def owners(program: Program) -> list[int]:
    """For each value the one whose memory it uses."""
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
    """Operation -> the values that no later one reads."""
    last: dict[int, int] = {}
    for index, operation in enumerate(program.operations):
        backward = index >= program.forward
        if index == program.forward:  # until its backward pass is over the loss has the outputs
            last.update({owner[value]: index for value in program.outputs})
        for value in operation.outputs:
            last[owner[value]] = index
        for value in (
            operation.inputs[-1:] if backward and operation.name.removesuffix("_grad") in SHAPES else operation.inputs
        ):
            copied = value in casts.copies and operation.name.startswith(("conv", "depthwise", "matmul"))
            last[copy_of(value) if copied else owner[value]] = index
    found: dict[int, list[int]] = {}
    for value, index in last.items():
        found.setdefault(index, []).append(value)
    return found
