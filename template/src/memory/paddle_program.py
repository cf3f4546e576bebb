"""A network's forward and backward pass as Paddle's own list of operations; nothing is computed."""

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("GLOG_minloglevel", "2")  # Paddle's own warnings of static programs
import paddle
from omegaconf import DictConfig, OmegaConf
from paddle.autograd.backward_utils import ValueDict

from src import tasks
from src.memory.shape import Shape
from src.models import build_model

BYTES = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "float64": 8}


@dataclass(frozen=True)
class Operation:
    """One operation on numbered values; `name` is Paddle's, without its dialect."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """One step. `sizes` are the bytes of each value, `gradients` maps a parameter to its gradient.

    The first `forward` operations are the forward pass with the loss. `floats` are the values of float32.
    """

    operations: tuple[Operation, ...]
    forward: int
    sizes: tuple[int, ...]
    floats: frozenset[int]
    parameters: tuple[int, ...]
    buffers: tuple[int, ...]
    gradients: dict[int, int]
    data: tuple[int, int]


class Network:
    """The configured network, whose weights are never filled."""

    def __init__(self, cfg: DictConfig, shape: Shape) -> None:
        self.cfg, self.shape = cfg, shape
        fresh = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
        with paddle.LazyGuard():
            self.layer = build_model(fresh, shape.classes, shape.channels, shape.image_size)
        self.layer.train()
        stores = [s for sub in self.layer.sublayers(include_self=True) for s in (sub._parameters, sub._buffers)]
        self.places = [(store, key, value) for store in stores for key, value in store.items() if value is not None]

    def program(self, batch: int) -> Program:
        """Its training step with batches of `batch`."""
        paddle.enable_static()
        try:
            with warnings.catch_warnings(), paddle.static.program_guard(paddle.static.Program()):
                warnings.simplefilter("ignore")  # of what static programs lack, and eager ones do not
                return self.build(batch)
        finally:
            paddle.disable_static()

    def build(self, batch: int) -> Program:
        weights: list[Any] = []
        for number, (store, key, value) in enumerate(self.places):
            store[key] = paddle.static.data(f"weight_{number}", value.shape, value.dtype)
            store[key].stop_gradient = value.stop_gradient
            weights.append(store[key])
        size = self.shape.image_size
        images = paddle.static.data("images", [batch, self.shape.channels, size, size], "float32")
        targets = paddle.static.data("targets", [batch], "int64")
        loss = tasks.load_loss(self.cfg, self.shape.counts())(self.layer(images), targets)
        block = paddle.static.default_main_program().global_block()
        forward = len(block.ops)
        trained = [weight for weight in weights if not weight.stop_gradient]
        gradients = paddle.static.gradients([loss], trained)
        pairs = list(zip(trained, gradients, strict=True))
        return number_values(block.ops, forward, weights, pairs, (images, targets))


def number_values(
    operations: list[Any], forward: int, weights: list[Any], gradients: list[Any], data: tuple[Any, Any]
) -> Program:
    """Paddle's values as numbers, with their sizes."""
    numbers = ValueDict()  # the same value comes as another Python object each time
    sizes: list[int] = []
    floats: set[int] = set()

    def number(value: Any) -> int:
        if value not in numbers:
            numbers[value] = len(sizes)
            dense = value.is_dense_tensor_type()
            kind = str(value.dtype).rpartition(".")[2] if dense else ""
            sizes.append(math.prod(max(0, side) for side in value.shape) * BYTES.get(kind, 4) if dense else 0)
            if kind == "float32":
                floats.add(numbers[value])
        return numbers[value]

    rows = []
    for operation in operations:
        inputs = [source for source in operation.operands_source() if source is not None and source.initialized()]
        name = operation.name().rpartition(".")[2]
        rows.append(Operation(name, tuple(map(number, inputs)), tuple(map(number, operation.results()))))
    parameters = tuple(number(weight) for weight in weights if not weight.stop_gradient)
    buffers = tuple(number(weight) for weight in weights if weight.stop_gradient)
    found = {number(weight): number(value) for weight, value in gradients if value is not None}
    pair = (number(data[0]), number(data[1]))
    return Program(tuple(rows), forward, tuple(sizes), frozenset(floats), parameters, buffers, found, pair)
