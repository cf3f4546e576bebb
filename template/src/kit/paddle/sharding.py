"""`trainer.strategy=zero_1`, `zero_2` and `fsdp`: each process takes the optimizer's step for some of the weights.

ZeRO's stages (Rajbhandari et al. 2020, arXiv 1910.02054). In all of them a process keeps the optimizer's state of its
own weights only. With stage 1 gradients are averaged as in plain data parallel; with stage 2 each is summed where its
weight's state is, and freed elsewhere. After the step, each weight is sent from the process that has changed it; with
stage 3 it is sent to each layer that computes instead. Checkpoints are those of any run of Paddle,
written a tensor at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

import paddle
from paddle.nn import ClipGradByGlobalNorm
from paddle.nn.clip import ClipGradBase
from src.kit.config import UserError
from src.kit.weights import save_weights, stream_weights

STAGES = {"zero_1": 1, "zero_2": 2, "fsdp": 3}


def refuse_undivided(cfg: DictConfig) -> None:
    """Refuse what needs whole weights or gradients in one place.

    Raises:
        UserError: names the key.
    """
    trainer = cfg.trainer
    if trainer.precision == "16-mixed" and trainer.strategy in ("zero_2", "fsdp"):
        raise UserError(
            f"trainer.strategy={trainer.strategy} has no trainer.precision=16-mixed: use bf16-mixed or 32-true."
        )
    for key in ("ema", "swa"):
        if trainer.strategy == "fsdp" and trainer[key] is not None:
            raise UserError(f"trainer.strategy=fsdp has no trainer.{key}: leave one of them out, or use zero_2.")


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


class DividedWeights:
    """Stage 3: a layer has its weights whole while it computes, in the forward and in the backward pass.

    A weight is sent by the process that keeps it. The backward pass reads it from the same tensor, whose memory was
    freed and is filled again when the gradient of the layer's output has come. Layers with weights of their own are
    gathered one by one; frozen weights stay whole on each process.
    """

    def __init__(
        self, network: paddle.nn.Layer, weights: Sequence[paddle.Tensor], owners: Sequence[int], rank: int
    ) -> None:
        """`owners` are the ranks that keep the `weights`; this one is `rank`."""
        self.weights, self.owners, self.rank = weights, owners, rank
        indices = {id(weight): index for index, weight in enumerate(weights)}
        self.owned = {id(weight): owner for weight, owner in zip(weights, owners, strict=True)}
        self.whole: set[int] = set()  # indices of weights that all processes have now
        self.users: Counter[int] = Counter()  # layers in their forward pass
        self.held: set[int] = set()  # until their gradient is complete
        self.complete: set[int] = set()  # weights whose gradient is, in this backward pass
        for layer in network.sublayers(include_self=True):
            own = [indices.get(id(weight)) for weight in layer.parameters(include_sublayers=False)]
            if divided := [index for index in own if index is not None]:
                layer.register_forward_pre_hook(partial(self.enter, divided))
                layer.register_forward_post_hook(partial(self.leave, divided))
        self.drop(range(len(weights)))

    def owner_of(self, weight: paddle.Tensor) -> int:
        """The rank that keeps a weight; 0 if all do."""
        return self.owned.get(id(weight), 0)

    def enter(self, indices: Sequence[int], *_: Any) -> None:
        """Before a layer's forward pass."""
        self.gather(indices)
        self.users.update(indices)

    def leave(self, indices: Sequence[int], layer: Any, inputs: Any, outputs: Any) -> None:
        """After a layer's forward pass."""
        for output in paddle.utils.flatten(outputs):
            if isinstance(output, paddle.Tensor) and not output.stop_gradient:
                output.register_hook(partial(self.hold, indices))
        self.users.subtract(indices)
        self.release(indices)

    def hold(self, indices: Sequence[int], *_: Any) -> None:
        """Before a layer's backward pass."""
        waiting = [index for index in indices if index not in self.complete]
        self.gather(waiting)
        self.held.update(waiting)

    def release_held(self, index: int) -> None:
        """After the last use of a weight in the backward pass."""
        self.complete.add(index)
        self.held.discard(index)
        self.release([index])

    def end_pass(self) -> None:
        """After the backward pass."""
        self.held.clear()
        self.complete.clear()
        self.release(list(self.whole))

    def gather(self, indices: Sequence[int]) -> None:
        """Have these weights whole on all processes."""
        for index in indices:
            if index in self.whole:
                continue
            self.whole.add(index)
            weight, owner = self.weights[index], self.owners[index]
            with paddle.no_grad():
                sent = weight if owner == self.rank else paddle.empty(weight.shape, weight.dtype)
                paddle.distributed.broadcast(sent, src=owner)
                if sent is not weight:
                    sent._share_buffer_to(weight)

    def release(self, indices: Iterable[int]) -> None:
        """Free those of these weights that nothing needs now."""
        free = [index for index in indices if not self.users[index] and index not in self.held]
        self.whole.difference_update(free)
        self.drop(free)

    def drop(self, indices: Iterable[int]) -> None:
        """Free the memory of other processes' weights."""
        for index in indices:
            if self.owners[index] != self.rank:
                self.weights[index]._clear_data()


def gathered_bytes(network: paddle.nn.Layer) -> int:
    """Bytes of what a process has whole for a while, at most, where no layer is used twice.

    These are the largest layer's trained weights, and those that belong to layers with layers of their own.
    """
    outer = largest = 0
    for layer in network.sublayers(include_self=True):
        own = [weight for weight in layer.parameters(include_sublayers=False) if not weight.stop_gradient]
        size = sum(weight.size * weight.element_size() for weight in own)
        if list(layer.children()):
            outer += size
        else:
            largest = max(largest, size)
    return outer + largest


class Part(ClipGradBase):
    """This process's share of the optimizer's state, and with stages 2 and 3 of the gradients and of the weights.

    Clips all gradients as `clip` does, and hands the optimizer those of this process's weights: an optimizer makes its
    state for the weights that come out of its `grad_clip`, whatever its formula.
    """

    def __init__(self, weights: Sequence[paddle.Tensor], clip: Any, rank: int, ranks: int, stage: int = 1) -> None:
        super().__init__()
        self.weights, self.clip, self.rank, self.ranks, self.stage = weights, clip, rank, ranks, stage
        self.owners = share_out([weight.size for weight in weights], ranks)
        self.names = {each.name for each, owner in zip(weights, self.owners, strict=True) if owner == rank}
        self.layers: DividedWeights | None = None
        self.done: Callable[[int], None] = lambda index: None  # told of each gradient that is complete
        self.start_pass()

    def start_pass(self) -> None:
        """Expect the gradients of a backward pass."""
        self.complete, self.turn = set[int](), len(self.weights) - 1

    def _dygraph_clip(self, pairs: list[Any]) -> list[Any]:
        if self.stage > 1 and isinstance(self.clip, ClipGradByGlobalNorm):
            return self.clip_parts(pairs)
        clipped = self.clip(pairs) if self.clip else pairs
        return [(weight, gradient) for weight, gradient in clipped if weight.name in self.names]

    def clip_parts(self, pairs: list[Any]) -> list[Any]:
        """Clip this process's gradients by the norm of those of all processes."""
        square = paddle.zeros([1])
        for _, gradient in pairs:
            square += paddle._C_ops.squared_l2_norm(gradient).reshape([1])
        paddle.distributed.all_reduce(square)
        most = self.clip.clip_norm
        factor = most / paddle.clip(square.sqrt(), min=most)
        return [(weight, gradient * factor) for weight, gradient in pairs]

    def attach(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Let the optimizer's `step` end when each process has all new weights that it keeps."""
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

        optimizer.part = self
        if self.stage < 3:
            optimizer.step = step_and_share

    def divide_gradients(self) -> None:
        """From now on, sum each gradient at its owner as soon as it is complete, and free it elsewhere."""
        for index, weight in enumerate(self.weights):
            weight._register_backward_hook(partial(self.complete_one, index))

    def complete_one(self, index: int, *_: Any) -> None:
        """Take in a gradient; all processes send theirs in one order, whatever the order in which they come."""
        self.done(index)
        self.complete.add(index)
        while self.turn in self.complete:
            self.send_next()

    def send_next(self) -> None:
        """Sum the gradient whose turn it is at its owner; a weight that this batch did not need adds zeros."""
        weight, owner = self.weights[self.turn], self.owners[self.turn]
        missing = weight.grad is None
        gradient = paddle.zeros(weight.shape, weight.dtype) if missing else weight.grad
        paddle.distributed.reduce(gradient, dst=owner)  # the owner's has the sums of the step's earlier batches
        if owner != self.rank:
            weight.clear_gradient(False)
        elif missing:
            weight.grad = gradient
        self.turn -= 1

    def end_pass(self) -> None:
        """Send what the backward pass has left."""
        while self.turn >= 0:
            self.send_next()
        self.start_pass()

    def keeps(self, name: str) -> bool:
        """Whether a tensor of the optimizer's state, `weight's name_kind_number`, is one of this process's."""
        return any(name.startswith(f"{own}_") for own in self.names)


def connect_ranks(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, ranks: int) -> paddle.nn.Layer:
    """Start all `ranks` from rank 0's weights, and return what they train together."""
    if not divides_gradients(optimizer):
        return paddle.DataParallel(network) if ranks > 1 else network
    part = optimizer.part
    for tensor in network.state_dict().values():
        paddle.distributed.broadcast(tensor, src=0)
    part.divide_gradients()
    if part.stage == 3:
        part.layers = DividedWeights(network, part.weights, part.owners, part.rank)
        part.done = part.layers.release_held
    return network


def backward(loss: paddle.Tensor, optimizer: paddle.optimizer.Optimizer) -> None:
    """Compute the gradients of the mean of all ranks' losses."""
    if not divides_gradients(optimizer):  # `DataParallel` averages
        loss.backward()
        return
    part = optimizer.part
    (loss / part.ranks).backward()
    part.end_pass()
    if part.layers:
        part.layers.end_pass()


def divides_gradients(optimizer: paddle.optimizer.Optimizer) -> bool:
    """Whether each process has the gradients of its own weights only."""
    part = getattr(optimizer, "part", None)
    return part is not None and part.stage > 1


def divided_weights(optimizer: paddle.optimizer.Optimizer) -> DividedWeights | None:
    """The weights that the processes have divided among them, if they have."""
    part = getattr(optimizer, "part", None)
    return part.layers if part else None


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


def fetch_weight(layers: DividedWeights, weight: paddle.Tensor) -> np.ndarray:
    """A weight or a statistic of the network, on all ranks together, as float32; if all have it, rank 0's."""
    owner = layers.owner_of(weight)
    return fetch(weight if owner == paddle.distributed.get_rank() else None, weight.shape, owner)


def fetch(own: paddle.Tensor | None, shape: Sequence[int], rank: int) -> np.ndarray:
    """A tensor that `rank` has, as float32."""
    # on the current device: Adam's powers of beta stay in RAM, from where NCCL cannot send
    sent = paddle.zeros(shape) if own is None else own.astype("float32").to(paddle.get_device())
    paddle.distributed.broadcast(sent, src=rank)
    array: np.ndarray = sent.numpy()
    return array
