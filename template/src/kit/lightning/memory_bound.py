"""An upper bound of what a training in PyTorch takes, for runs that fit a GPU many times over; and one rank's share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from src.kit.memory import DataShape, Trace, example_targets, fill_buckets
from src.kit.training import build_loss, build_model

INPUTS = {"aten::convolution": 2, "aten::convolution_backward": 3}  # leading arguments that are large


class OutputSizes(TorchDispatchMode):
    """Adds up the bytes that operations return, views left out, and finds the largest convolution."""

    total = largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping imports torch._dynamo, which takes 2 s

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            made = sum(tensor.nbytes for tensor in iterate_tensors((results,)))
            self.total += made
            if operation._schema.name in INPUTS:
                self.largest = max(self.largest, made + sum(tensor.nbytes for tensor in iterate_tensors(args)))
        return results


def bound_bytes(cfg: DictConfig, shape: DataShape, batch: int) -> int | None:
    """More bytes than the tensors of a training take, from one forward pass that computes shapes only, in 0.1 s.

    What autograd keeps was returned by some operation, and the gradients of activations take no more than these.
    Optimizers keep up to two copies of the parameters and make as many in a step.

    Returns:
        None where shapes do not decide, as the network or the loss looks at values.
    """
    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    with torch.device("meta"), OutputSizes() as sizes:
        try:
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
            loss: Any = build_loss(cfg, shape.class_counts())
            targets = [torch.from_numpy(array).to("meta") for array in example_targets(cfg.task, shape, 2)]
            images = torch.empty(2, shape.channels, shape.image_size, shape.image_size)
            sizes.total = sizes.largest = 0
            loss(network(images), *targets)
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            return None
    parameters = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    inputs = sum(tensor.nbytes for tensor in (images, *targets))
    return 10 * parameters + batch * (2 * sizes.total + 2 * sizes.largest + 2 * inputs) // 2


def iterate_tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors in `values`, which may be nested in lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from iterate_tensors(value)


def describe_arguments(value: Any) -> Any:
    """A hashable key for arguments: tensors become their shape, strides and dtype."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(describe_arguments, value)) if isinstance(value, list | tuple) else (type(value), value)


def to_meta(value: Any) -> Any:
    """Tensors on the meta device, without memory, in place of tensors."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, dict):
        return {key: to_meta(each) for key, each in value.items()}
    return type(value)(map(to_meta, value)) if isinstance(value, list | tuple) else value


class Buckets:
    """DistributedDataParallel's buckets, of which gradients are views: one of everything in the first step.

    Later ones take the weights in the order in which their gradients came, and are made before the first one is freed.
    """

    def __init__(self, network: torch.nn.Module, add: Callable[[torch.Tensor, str], None]) -> None:
        """`add` records a tensor's memory and its kind."""
        self.add, self.sending = add, True
        self.views: dict[torch.Tensor, torch.Tensor] = {}
        self.came: list[torch.Tensor] = []
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        for weight in weights:
            weight.register_post_accumulate_grad_hook(self.take)
        self.allocate([weights] if weights else [])

    def start(self, batch: int, parts: int) -> None:
        """Begin with a batch, counted from 0, of which each step has `parts`; the last one's gradients are sent."""
        self.sending = batch % parts == parts - 1
        if batch == parts:
            groups = fill_buckets([weight.nbytes for weight in self.came])
            self.allocate([[self.came[index] for index in group] for group in groups])

    def allocate(self, groups: Sequence[Sequence[torch.Tensor]]) -> None:
        views = {}
        for group in groups:
            bucket = torch.empty(sum(weight.numel() for weight in group))
            self.add(bucket, "gradients")
            for weight, part in zip(group, bucket.split([weight.numel() for weight in group]), strict=True):
                views[weight] = part.view(weight.shape)
                if weight.grad is not None:
                    weight.grad = views[weight]
        self.views = views

    def take(self, weight: torch.Tensor) -> None:
        """Copy a gradient that has come, and those of the step's earlier batches, to its bucket."""
        if self.sending:
            self.came.append(weight)
            weight.grad = self.views[weight]


def divide_traces(cfg: DictConfig, shape: DataShape, traces: Sequence[Trace], ranks: int) -> list[Trace]:
    """The traces of one of `ranks` processes with `trainer.strategy=fsdp` or `fsdp_offload`.

    It has a part of each weight, of its gradient and of its optimizer state, on the GPU or in RAM, whole activations,
    and what it gathers, as workspace. FSDP divides the first axis into equal parts, the last of which may be padded.
    """
    from src.kit.lightning.sharding import gathered_bytes  # half a second that other runs can spare

    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    try:
        with torch.device("meta"):
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments)
    except (RuntimeError, NotImplementedError):  # it looks at values
        network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments)
    weights = list(network.parameters())  # the first blocks of a trace; buffers, which stay whole, follow
    parts: dict[int, int] = {}  # bytes of a weight -> of a part
    for weight in weights:
        rows = weight.shape[0] if weight.ndim else 1
        parts[weight.nbytes] = max(parts.get(weight.nbytes, 0), weight.nbytes // rows * -(-rows // ranks))
    gathered, offload = gathered_bytes(network), cfg.trainer.strategy == "fsdp_offload"
    divided = []
    for trace in traces:
        own = {
            block
            for block, kind in trace.kinds.items()
            if kind in ("gradients", "optimizer") or (kind == "parameters" and block < len(weights))
        }
        events = tuple((block, parts.get(size, size) if block in own else size) for block, size in trace.events)
        kinds = {block: "host" if offload and block in own else kind for block, kind in trace.kinds.items()}
        first = len(kinds)
        divided.append(Trace(((first, gathered), *events), kinds | {first: "workspace"}))
    return divided
