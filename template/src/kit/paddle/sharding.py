"""`trainer.strategy=zero_1`: each process keeps the optimizer's state of some weights, and takes the step for those.

ZeRO's stage 1 (Rajbhandari et al. 2020, arXiv 1910.02054). Gradients are averaged as in plain data parallel, so each
process clips by the norm of all of them; after the step, each weight is sent from the process that has changed it.
Checkpoints are those of any run of Paddle, written a tensor at a time.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import paddle
from paddle.nn.clip import ClipGradBase
from src.kit.weights import save_weights, stream_weights


def share_out(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank that keeps the state of each weight: the largest first, each to the one with the least so far.

    Args:
        sizes: of the weights, in elements or bytes.
    """
    owners, loads = [0] * len(sizes), [0] * ranks
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += sizes[index]
    return owners


class Part(ClipGradBase):
    """Clips all gradients as `clip` does, and hands the optimizer those of this process's weights.

    An optimizer makes its state for the weights that come out of its `grad_clip`, whatever its formula.
    """

    def __init__(self, weights: Sequence[paddle.Tensor], clip: Any, rank: int, ranks: int) -> None:
        super().__init__()
        self.weights, self.clip = weights, clip
        self.owners = share_out([weight.size for weight in weights], ranks)
        self.names = {each.name for each, owner in zip(weights, self.owners, strict=True) if owner == rank}

    def _dygraph_clip(self, pairs: list[Any]) -> list[Any]:
        clipped = self.clip(pairs) if self.clip else pairs
        return [(weight, gradient) for weight, gradient in clipped if weight.name in self.names]

    def attach(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Let the optimizer's `step` end when each process has all new weights."""
        step = optimizer.step

        def step_and_share() -> None:
            step()
            with paddle.no_grad():
                tasks = [
                    paddle.distributed.broadcast(weight, src=owner, sync_op=False)
                    for weight, owner in zip(self.weights, self.owners, strict=True)
                ]
            for task in tasks:
                task.wait()

        optimizer.step, optimizer.part = step_and_share, self

    def keeps(self, name: str) -> bool:
        """Whether a tensor of the optimizer's state, `weight's name_kind_number`, is one of this process's."""
        return any(name.startswith(f"{own}_") for own in self.names)


def keeps(optimizer: paddle.optimizer.Optimizer, name: str) -> bool:
    """Whether this process needs a tensor of the optimizer's state: without `zero_1`, all of them."""
    part = getattr(optimizer, "part", None)
    return part is None or part.keeps(name)


def own_state(optimizer: paddle.optimizer.Optimizer) -> dict[str, paddle.Tensor]:
    """The tensors of the optimizer's state that this process has, by name."""
    return {name: value for name, value in optimizer.state_dict().items() if hasattr(value, "numpy")}


def save_state(
    optimizer: paddle.optimizer.Optimizer, path: Path, others: Mapping[str, np.ndarray], metadata: dict[str, str] | None
) -> None:
    """Write the optimizer's state and `others`, on all ranks together; rank 0, which has `metadata`, writes.

    Where they divide it, a tensor at a time is sent to all of them, as float32.
    """
    own = own_state(optimizer)
    if getattr(optimizer, "part", None) is None:
        if metadata is not None:
            save_weights(path, {name: value.numpy() for name, value in own.items()} | dict(others), metadata)
        return
    every: list[Any] = []
    paddle.distributed.all_gather_object(every, [(name, tuple(value.shape)) for name, value in own.items()])
    rows = sorted((name, shape, rank) for rank, each in enumerate(every) for name, shape in each)
    arrays = (fetch(own.get(name), shape, rank) for name, shape, rank in rows)
    if metadata is None:
        for _ in arrays:
            pass
        return
    shapes = {name: shape for name, shape, _ in rows} | {name: array.shape for name, array in others.items()}
    stream_weights(path, shapes, chain(arrays, others.values()), metadata)


def fetch(own: paddle.Tensor | None, shape: Sequence[int], rank: int) -> np.ndarray:
    """A tensor that `rank` has, as float32."""
    # on the current device: Adam's powers of beta stay in RAM, from where NCCL cannot send
    sent = paddle.zeros(shape) if own is None else own.astype("float32").to(paddle.get_device())
    paddle.distributed.broadcast(sent, src=rank)
    array: np.ndarray = sent.numpy()
    return array
