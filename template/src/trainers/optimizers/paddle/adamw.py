"""AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) and Adam (Kingma & Ba 2014, arXiv 1412.6980) in Paddle."""

from collections.abc import Iterable
from typing import Annotated, Any

import paddle

from src.kit.config import Range
from src.kit.paddle import is_decayed


def build(
    parameters: Iterable[paddle.Tensor],
    *,
    grad_clip: Any,
    lr: Annotated[float, Range(above=0)] = 0.003,
    weight_decay: Annotated[float, Range(min=0)] = 0.01,
    betas: Annotated[tuple[float, float], Range(min=0, below=1)] = (0.9, 0.999),
    decoupled: bool = True,
) -> paddle.optimizer.Optimizer:
    """Return the optimizer; the kit sets `grad_clip`.

    Args:
        lr: Peak learning rate.
        weight_decay: Weight decay.
        betas: Decay rates of the running means of the gradient and of its square.
        decoupled: Decay the weights themselves (AdamW); false adds the decay to the gradient (Adam).
    """
    listed = list(parameters)
    common = {"parameters": listed, "weight_decay": weight_decay, "grad_clip": grad_clip}
    if not decoupled:
        return paddle.optimizer.Adam(lr, betas[0], betas[1], **common)
    decayed = {each.name for each in listed if is_decayed(each)}
    return paddle.optimizer.AdamW(lr, betas[0], betas[1], apply_decay_param_fun=decayed.__contains__, **common)
