"""Floating-point operations of a Paddle network, from the operations that its forward pass is made of."""

import math
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

import paddle
from src.kit.training import build_network

PRODUCTS = ("matmul", "bmm")


def count_flops(cfg: DictConfig, split: Any, shape: Sequence[int]) -> int:
    """Those of matrix products and convolutions in one training step on inputs of `shape`, nothing being computed.

    A multiplication and an addition are two. The backward pass has one such operation for each of the two operands that
    needs a gradient. `paddle.flops` would count one for both, the forward pass only, and layers only.
    """
    paddle.enable_static()
    try:
        program = paddle.static.Program()
        with paddle.static.program_guard(program, paddle.static.Program()):
            network = build_network(cfg, split, initial=False)
            network.train()
            network(paddle.static.data("images", list(shape), "float32"))
        return sum(map(operation_flops, program.global_block().ops))
    finally:
        paddle.disable_static()


def operation_flops(operation: Any) -> int:
    """Of one operation of Paddle's intermediate representation, with its backward pass."""
    name = operation.name().rpartition(".")[2]
    if "conv" not in name and name not in PRODUCTS:
        return 0
    (inputs, weights), output = operation.operands_source()[:2], operation.results()[0]
    if name in PRODUCTS:
        multiplied = math.prod(output.shape) * inputs.shape[-2 if operation.attrs().get("transpose_x") else -1]
    else:  # weights are (out, in / groups, ...), and of a transposed convolution (in, out / groups, ...)
        places = inputs if name.endswith("transpose") else output
        multiplied = math.prod(places.shape) * math.prod(weights.shape[1:])
    return int(2 * multiplied * (1 + (not inputs.stop_gradient) + (not weights.stop_gradient)))
