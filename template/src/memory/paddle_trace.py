"""Events of two training steps in Paddle, from its own list of operations: nothing is computed and no GPU is needed.

A value lives until the last operation that reads it, as in Paddle's dynamic graph, where autograd keeps exactly what
the backward operations read. `clear_grad` fills gradients with zeros and keeps their memory, so that the next step
makes each gradient a second time. Moments and velocities are float32, and Adam's powers of beta stay in RAM.
"""

from omegaconf import DictConfig

from src.memory.paddle_precision import Casts, cast
from src.memory.paddle_program import Network, Program
from src.memory.shape import Shape
from src.memory.trace import Recorder, Trace
from src.memory.workspace import convolution

KINDS = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
STATES = {"adamw": 2, "sgd": 1}  # tensors of a parameter's size
# their output is a view of the input, or is written over it
VIEWS = {"reshape", "flatten", "squeeze", "unsqueeze", "transpose", "slice", "split", "unbind", "share_data_", "add_n"}
# backward operations that need the shape of what they are given and not its values
SHAPES = {"add", "subtract", "mean", "sum", "concat", "pad3d", "dropout", "stack", "reshape", "flatten", "transpose"}
SHAPES |= {"squeeze", "unsqueeze", "split", "scale"}
CONVOLUTIONS = ("conv2d", "conv2d_grad")  # depthwise ones have kernels of their own
STEPS = 2


def traces(cfg: DictConfig, shape: Shape, batches: tuple[int, int]) -> list[Trace]:
    """The events of two optimizer steps of the configured training, for each batch size."""
    network = Network(cfg, shape)
    return [record(cfg, network.program(batch)) for batch in batches]


def record(cfg: DictConfig, program: Program) -> Trace:
    """Both steps of one program."""
    recorder = Recorder()
    kind = KINDS.get(cfg.trainer.precision)
    casts = cast(program, kind) if kind else Casts()
    for value in (*program.parameters, *program.buffers):
        recorder.allocate(program.sizes[value], "parameters")
    sizes = [program.sizes[value] for value in program.gradients]
    for step in range(STEPS):
        step_events(recorder, program, casts, keep=step == 0)
        if cfg.trainer.gradient_clip_val:
            for block in [recorder.allocate(size, "workspace") for size in sizes]:
                recorder.free(block)
        if step == 0:
            for size in sizes * STATES[cfg.optimizer.name]:
                recorder.allocate(size, "optimizer")
    return recorder.trace()


def step_events(recorder: Recorder, program: Program, casts: Casts, keep: bool) -> None:
    """Forward and backward pass of one batch; `keep` its gradients, or add them to those that are there."""
    owner = owners(program)
    last = last_reads(program, owner, casts)
    held = {value: recorder.allocate(program.sizes[value], "data") for value in program.data}
    fixed = {*program.parameters, *program.buffers, *program.data}
    finals = {owner[value] for value in program.gradients.values()}
    for index, operation in enumerate(program.operations):
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


def copy_of(value: int) -> int:
    """The number of a value's copy in half precision."""
    return -1 - value


def size_of(program: Program, casts: Casts, value: int) -> int:
    """Bytes of a value."""
    return program.sizes[value] // 2 if value in casts.half and value in program.floats else program.sizes[value]
