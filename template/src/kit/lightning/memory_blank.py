"""PyTorch operations on blank tensors, whose values nobody needs: shapes are worked out and nothing is computed."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

EMPTY = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"}
# these look at shapes only, so that their results are not blank
FILLED = {f"aten::{name}" for name in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")}
WRITTEN = {"aten::zero_", "aten::fill_", "aten::copy_"}
SHARED = {"aten::_unsafe_view", "aten::lift_fresh"}  # views, though their schema does not say so
LOOKING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Blank(TorchDispatchMode):
    """Uninitialised memory is blank, and so is what an operation makes of it.

    Blank memory is reserved and never touched. All other tensors are computed: what a loss asks of objects decides how
    much memory it takes.
    """

    known: ClassVar[dict[Any, Any]] = {}  # operation and the shapes that it was given -> results without memory

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to do so takes an import of 2 s, and nothing is compiled here

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = operation._schema
        blank = any(is_blank(tensor) for tensor in find((*args, *kwargs.values())))
        if blank and schema.name in WRITTEN and not any(map(is_blank, find(args[1:]))):
            blank = args[0].nbytes < args[0].untyped_storage().nbytes()
            mark(args[0], blank)
        if not blank or operation.is_view or schema.name in SHARED or schema.name in FILLED:
            results = operation(*args, **kwargs)
            return mark(results) if schema.name in EMPTY else results
        if schema.is_mutable:
            given = [*args, *(kwargs.get(argument.name) for argument in schema.arguments[len(args) :])]
            pairs = zip(schema.arguments, given, strict=True)
            written = [value for argument, value in pairs if argument.alias_info and argument.alias_info.is_write]
            mark(written)
            if not schema.returns:
                return None
            if schema.returns[0].alias_info:
                return written[0] if len(schema.returns) == 1 else tuple(written)
        if schema.name == "aten::index":
            args = (args[0], [place for mask in args[1] for place in places(mask)])
        elif any(tag in operation.tags for tag in LOOKING):
            raise RuntimeError(f"{operation} looks at the values of tensors")
        key = (operation, outline((args, tuple(kwargs.items()))))
        if key not in self.known:
            self.known[key] = operation(*to_meta(args), **to_meta(kwargs))
        return make(self.known[key])


class Looking(TorchFunctionMode):
    """What a network detaches is revealed: it looks for objects there."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "detach" and is_blank(args[0]):
            reveal(args[0], self.batch)
        return function(*args, **(kwargs or {}))


def is_blank(tensor: torch.Tensor) -> bool:
    """Whether nobody knows the values; all views of a tensor's memory are blank together."""
    return getattr(tensor.untyped_storage(), "blank", False)


def mark(value: Any, blank: bool = True) -> Any:
    """Call all tensors in it blank, or not."""
    for tensor in find((value,)):
        tensor.untyped_storage().blank = blank  # type: ignore[attr-defined] # storages live as long as their memory
    return value


def reveal(tensor: torch.Tensor, batch: int) -> None:
    """Fill blank memory with noise that repeats `batch` times: as many values pass a test in every image."""
    with _disable_current_modes():
        flat = tensor.new_empty(0).set_(
            tensor.untyped_storage(), 0, (tensor.untyped_storage().nbytes() // tensor.itemsize,)
        )
        rows = flat.view(batch if len(flat) % batch == 0 else 1, -1)
        rows.copy_(torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0)))
    mark(tensor, blank=False)


def find(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors in it, which may be in lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from find(value)


def places(mask: Any) -> tuple[Any, ...]:
    """An index, where a mask selects as many as its values say: int64 (N,) for each of its dimensions."""
    if not isinstance(mask, torch.Tensor) or mask.dtype not in (torch.bool, torch.uint8):
        return (mask,)
    if is_blank(mask):
        raise RuntimeError("a mask of unknown values selects from a tensor")
    return mask.nonzero(as_tuple=True)


def outline(value: Any) -> Any:
    """Shapes, strides and kinds of tensors in place of them, to be compared."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(outline, value)) if isinstance(value, list | tuple) else (type(value), value)


def make(value: Any) -> Any:
    """Blank tensors like these, which are without memory."""
    if isinstance(value, torch.Tensor):
        return mark(torch.empty_strided(value.shape, value.stride(), dtype=value.dtype))
    return type(value)(map(make, value)) if isinstance(value, list | tuple) else value


def to_meta(value: Any) -> Any:
    """Tensors without memory in place of tensors."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    if isinstance(value, dict):
        return {key: to_meta(each) for key, each in value.items()}
    return type(value)(map(to_meta, value)) if isinstance(value, list | tuple) else value
