"""What a CUDA device would run in place of the CPU's kernels, for tensors that only pretend to be there."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# torch/amp documentation, "CUDA Ops that can autocast to float32", as far as the CPU's own list lacks them
FLOAT32 = {
    "exp", "log", "log10", "log1p", "expm1", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "sum", "cumsum",
    "prod", "norm", "softmax", "log_softmax", "softmin", "softplus", "layer_norm", "group_norm", "cross_entropy",
    "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div", "cosine_similarity",
    "binary_cross_entropy_with_logits", "interpolate",
}  # fmt: skip
HALF = (torch.bfloat16, torch.float16)


class CudaKernels(TorchFunctionMode):
    """Chooses as CUDA does: fused dropout and attention, and under autocast float32 where CUDA wants it."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name == "dropout" and function is torch.dropout:
            values, rate, train = args
            return torch.native_dropout(values, rate, train)[0] if train and rate else values
        if name == "scaled_dot_product_attention":
            return attention(*args, **kwargs)
        if name in FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(widen, (tuple(args), kwargs))
        return function(*args, **kwargs)


def widen(value: Any) -> Any:
    """Half-precision tensors become float32."""
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, *_: Any, **kwargs: Any
) -> torch.Tensor:
    """Fused attention: keeps its inputs, its output and the log-sum of each row, and no (L, L) weights."""
    if query.ndim != 4 or (attn_mask is not None and attn_mask.requires_grad):
        weights = query @ key.transpose(-2, -1)
        return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ value
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (part.to(torch.get_autocast_dtype("cpu")) for part in (query, key, value))
    mask = None if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.to(query.dtype)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=mask)[0]
