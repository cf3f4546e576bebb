"""Trace the allocations of two training steps in PyTorch, on a CPU and without computing.

Only what decides how much memory is taken is computed, such as which cells of a detector learn an object. The tensors
are on the CPU, since a CPU build of PyTorch has no others; `CudaKernels` corrects what CUDA would do differently.
Scratch inside a kernel is invisible here: `convolution_workspace` adds it."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar
from weakref import finalize

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from src.kit.lightning.device import HALF_PRECISION
from src.kit.lightning.memory_bound import INPUTS, Buckets, describe_arguments, iterate_tensors, to_meta
from src.kit.lightning.memory_bound import bound_bytes as bound_bytes
from src.kit.lightning.memory_bound import divide_traces as divide_traces
from src.kit.lightning.trainer import build_optimizer
from src.kit.memory import DataShape, Recorder, Trace, convolution_workspace, example_targets, keeps_buckets
from src.kit.training import batches_per_step, build_loss, build_model, recompute

EMPTY = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"}
# read only the shapes of their arguments, so that their results are known
FILLED = {f"aten::{name}" for name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")}
WRITTEN = {"aten::zero_", "aten::fill_", "aten::copy_"}
SHARED = {"aten::_unsafe_view", "aten::lift_fresh"}  # views, though their schema does not say so
VALUE_DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
# torch/amp documentation, "CUDA Ops that can autocast to float32", minus those on the CPU's own list
FLOAT32 = {
    "exp", "log", "log10", "log1p", "expm1", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "sum", "cumsum",
    "prod", "norm", "softmax", "log_softmax", "softmin", "softplus", "layer_norm", "group_norm", "cross_entropy",
    "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "cosine_similarity",
    "binary_cross_entropy_with_logits", "interpolate",
}  # fmt: skip
HALF = (torch.bfloat16, torch.float16)
PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot")}  # cuBLAS's
STEPS = 2  # the second one has the optimizer's state and the last gradients
FEW_CHANNELS = 8  # fewer are padded, so that a kernel needs a copy
GROUPS = {2: 8, 3: 9}  # large arguments -> index of the number of groups


class UnknownValues(TorchDispatchMode):
    """Treats uninitialised memory as unknown values, and so every result that depends on them.

    All other tensors are computed: how much memory a loss takes depends on the objects it finds.
    """

    results: ClassVar[dict[Any, Any]] = {}  # operation and its arguments' shapes -> results on the meta device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping imports torch._dynamo, which takes 2 s, and nothing is compiled here

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = operation._schema
        unknown = any(is_unknown(tensor) for tensor in iterate_tensors((*args, *kwargs.values())))
        if unknown and schema.name in WRITTEN and not any(map(is_unknown, iterate_tensors(args[1:]))):
            unknown = args[0].nbytes < args[0].untyped_storage().nbytes()
            mark_unknown(args[0], unknown)
        if not unknown or operation.is_view or schema.name in SHARED or schema.name in FILLED:
            results = operation(*args, **kwargs)
            return mark_unknown(results) if schema.name in EMPTY else results
        if schema.is_mutable:
            written = mark_unknown(written_arguments(schema, args, kwargs))
            if not schema.returns:
                return None
            if schema.returns[0].alias_info:
                return written[0] if len(schema.returns) == 1 else tuple(written)
        if schema.name == "aten::index":
            args = (args[0], [index for mask in args[1] for index in mask_to_indices(mask)])
        elif any(tag in operation.tags for tag in VALUE_DEPENDENT):
            raise RuntimeError(f"{operation} looks at the values of tensors")
        key = (operation, describe_arguments((args, tuple(kwargs.items()))))
        if key not in self.results:
            with _disable_current_modes():  # a mode around this one would return, and this keep, real memory
                self.results[key] = operation(*to_meta(args), **to_meta(kwargs))
        return allocate_like(self.results[key])


class NoiseOnDetach(TorchFunctionMode):
    """Fills what a network detaches with noise, since it looks for objects there."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "detach" and is_unknown(args[0]):
            fill_with_noise(args[0], self.batch)
        return function(*args, **(kwargs or {}))


class CudaKernels(TorchFunctionMode):
    """Runs what CUDA would on a CPU: fused dropout and attention, and under autocast float32 where CUDA wants it."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "dropout" and function is torch.dropout:
            values, rate, train = args
            return torch.native_dropout(values, rate, train)[0] if train and rate else values
        if name == "scaled_dot_product_attention":
            return fused_attention(*args, **kwargs)
        if name in FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(half_to_float32, (tuple(args), kwargs))
        return function(*args, **kwargs)


def half_to_float32(value: Any) -> Any:
    """Convert half-precision tensors to float32 and leave everything else."""
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value


def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, *_: Any, **kwargs: Any
) -> torch.Tensor:
    """Attention that keeps its inputs, its output and the log-sum of each row, but no (L, L) weights."""
    if query.ndim != 4 or (attn_mask is not None and attn_mask.requires_grad):
        weights = query @ key.transpose(-2, -1)
        return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ value
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (part.to(torch.get_autocast_dtype("cpu")) for part in (query, key, value))
    mask = None if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.to(query.dtype)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=mask)[0]


def is_unknown(tensor: torch.Tensor) -> bool:
    """Whether the tensor's values are unknown; all views of its memory share this."""
    return getattr(tensor.untyped_storage(), "unknown", False)


def mark_unknown(value: Any, unknown: bool = True) -> Any:
    """Mark the values of all tensors in `value` as unknown, or as known, and return it."""
    for tensor in iterate_tensors((value,)):
        tensor.untyped_storage().unknown = unknown  # type: ignore[attr-defined] # a storage lives as long as its memory
    return value


def fill_with_noise(tensor: torch.Tensor, batch: int) -> None:
    """Fill unknown memory with noise that repeats `batch` times, so that every image passes a test equally often."""
    with _disable_current_modes():
        flat = tensor.new_empty(0).set_(
            tensor.untyped_storage(), 0, (tensor.untyped_storage().nbytes() // tensor.itemsize,)
        )
        rows = flat.view(batch if len(flat) % batch == 0 else 1, -1)
        rows.copy_(torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0)))
    mark_unknown(tensor, unknown=False)


def written_arguments(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    given = [*args, *(kwargs.get(argument.name) for argument in schema.arguments[len(args) :])]
    pairs = zip(schema.arguments, given, strict=True)
    return [value for argument, value in pairs if argument.alias_info and argument.alias_info.is_write]


def mask_to_indices(mask: Any) -> tuple[Any, ...]:
    """A mask's indices, int64 (N,) for each of its dimensions: N depends on its values. Other indices stay."""
    if not isinstance(mask, torch.Tensor) or mask.dtype not in (torch.bool, torch.uint8):
        return (mask,)
    if is_unknown(mask):
        raise RuntimeError("a mask of unknown values selects from a tensor")
    return mask.nonzero(as_tuple=True)


def allocate_like(value: Any) -> Any:
    """Tensors of unknown values in place of tensors on the meta device."""
    if isinstance(value, torch.Tensor):
        return mark_unknown(torch.empty_strided(value.shape, value.stride(), dtype=value.dtype))
    return type(value)(map(allocate_like, value)) if isinstance(value, list | tuple) else value


class StorageRecorder(UnknownValues):
    """Records when the memory behind each tensor that an operation returns is allocated and freed."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.blocks: dict[int, int] = {}  # id of a living storage -> block
        self.thread, self.handles = "main", set[str]()  # threads that have computed a product

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = super().__torch_dispatch__(operation, types, args, kwargs)
        if inputs := INPUTS.get(operation._schema.name):
            self.add_kernels(args[:inputs], results if inputs == 3 else (results,), args[GROUPS[inputs]])
        for tensor in iterate_tensors((results,)):
            self.add(tensor)
        if operation._schema.name in PRODUCTS:
            self.add_handle()
        return results

    def add_handle(self) -> None:
        """Record the workspace that a thread's first product makes cuBLAS take, for good; `fill_handles` sizes it."""
        if self.thread not in self.handles:
            self.handles.add(self.thread)
            self.recorder.allocate(0, "handle")

    def add_kernels(self, inputs: Sequence[torch.Tensor], results: Sequence[Any], groups: int) -> None:
        """Record the scratch of a convolution's kernels, each beside what it and those before it return.

        Forward passes over many channels were best explained by kernels that take scratch and by some that don't.
        """
        bare = len(inputs) == 2 and inputs[0].shape[1] >= FEW_CHANNELS
        touched = (*inputs, results[0]) if len(inputs) == 2 else inputs
        workspace = convolution_workspace([padded_bytes(tensor) for tensor in touched], groups)
        for tensor in results[:2]:  # the third is the gradient of the bias
            if tensor is not None:
                self.add(tensor)
                self.recorder.allocate_briefly(workspace, "scratch" if bare else "workspace")

    def add(self, tensor: torch.Tensor | None, kind: str | None = None) -> None:
        """Record a tensor's memory if it is new, and its kind if given."""
        if tensor is None:
            return
        storage = tensor.untyped_storage()
        if id(storage) not in self.blocks:
            self.blocks[id(storage)] = self.recorder.allocate(storage.nbytes())
            finalize(storage, self.free, id(storage)).atexit = False
        if kind:
            self.recorder.kinds[self.blocks[id(storage)]] = kind

    def free(self, key: int) -> None:
        self.recorder.free(self.blocks.pop(key))


def padded_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a copy whose channels fill groups of 16 bytes, as tensor cores read them: 3 become 4 or, halved, 8."""
    channels, group = tensor.shape[1], 16 // tensor.itemsize
    return tensor.nbytes // channels * (-(-channels // group) * group)


def trace_steps(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two optimizer steps of the configured training for each batch size."""
    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    traces = []
    with UnknownValues():
        for batch in batches:  # each with its own network: some keep tensors from their first batch
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
            if cfg.trainer.gradient_checkpointing:
                recompute(cfg, network)
            loss: Any = build_loss(cfg, shape.class_counts())
            build = partial(build_optimizer, cfg, network)
            targets = example_targets(cfg.task, shape, batch)
            traces.append(record_steps(network, loss, build, shape, targets, cfg))
    return traces


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave reference cycles alone, which would be freed at moments that have nothing to do with the network."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def record_steps(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    build_optimizer: Callable[[], torch.optim.Optimizer],
    shape: DataShape,
    targets: Sequence[np.ndarray],
    cfg: DictConfig,
) -> Trace:
    """Train in Lightning's order: the gradients of one step live until the next one's forward pass is over.

    Args:
        targets: arrays with a row for each image.
    """
    recorder, keys = Recorder(), cfg.trainer
    with uncollected(), StorageRecorder(recorder) as storages, CudaKernels():
        for tensor in (*network.parameters(), *network.buffers()):
            storages.add(tensor, "parameters")
        optimizer = build_optimizer()
        for group in optimizer.param_groups:
            group["foreach"] = not group.get("fused")  # a GPU's default
        parts = min(batches_per_step(keys, keys.max_epochs - 1), 2)  # more take no more memory
        buckets = Buckets(network if keeps_buckets(cfg) else torch.nn.Module(), storages.add)
        for step in range(STEPS * parts):
            buckets.start(step, parts)
            data = make_batch(storages, shape, targets)
            value = forward_pass(network, loss, shape, data, HALF_PRECISION.get(keys.precision))
            if step % parts == 0:
                optimizer.zero_grad()
            storages.thread = "autograd"
            value.backward()
            storages.thread = "main"
            for parameter in network.parameters():
                storages.add(parameter.grad, "gradients")
            if step % parts == parts - 1:
                if keys.gradient_clip_val:
                    torch.nn.utils.clip_grad_norm_(network.parameters(), keys.gradient_clip_val, foreach=True)
                optimizer.step()
                mark_optimizer_state(storages, optimizer)
            del value, data
        return recorder.trace()


def make_batch(storages: StorageRecorder, shape: DataShape, targets: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Images of unknown values and the targets, recorded as data."""
    images = torch.empty(len(targets[0]), shape.channels, shape.image_size, shape.image_size)
    data = [images, *(torch.from_numpy(array.copy()) for array in targets)]
    for tensor in data:
        storages.add(tensor, "data")
    return data


def forward_pass(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    shape: DataShape,
    data: Sequence[torch.Tensor],
    half: torch.dtype | None,
) -> torch.Tensor:
    """The loss of a batch, under autocast to `half` if given."""
    images, *targets = data
    with torch.autocast("cpu", half) if half else nullcontext():
        with NoiseOnDetach(len(images)) if shape.objects else nullcontext():
            takes_targets = getattr(network, "takes_targets", False)
            outputs = network(images, *targets) if takes_targets else network(images)
        if shape.objects:  # which cells learn an object depends on the outputs' values
            for tensor in iterate_tensors((outputs,)):
                fill_with_noise(tensor, len(images))
        return loss(outputs, *targets)


def mark_optimizer_state(storages: StorageRecorder, optimizer: torch.optim.Optimizer) -> None:
    """Record the optimizer's state; unless fused, its step counters stay in RAM."""
    for state in optimizer.state.values():
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor):
                storages.add(tensor, "optimizer" if optimizer.defaults.get("fused") or name != "step" else "host")
