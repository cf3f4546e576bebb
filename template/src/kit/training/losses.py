"""Build the loss that the configuration names, and weigh rare classes."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig

from src.kit.config import build_component


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., Any]:
    """Build `cfg.loss` in `cfg.framework`: called with (outputs, *targets), it returns a scalar tensor.

    Args:
        class_counts: int64 (K,), the training samples of each class, if the task has classes.

    Raises:
        UserError: unknown loss, or a value out of its range.
    """
    loss: Callable[..., Any] = build_component("loss", cfg.loss, cfg.framework, class_counts)
    return loss


def weigh_classes(
    method: Literal["none", "balanced", "effective"], counts: np.ndarray | None, beta: float = 0.999
) -> np.ndarray | None:
    """Return the weight of each class's errors, float32 (K,), or None if all weigh the same.

    "balanced" is n / (K n_k), so that all classes weigh the same in total. "effective" divides by the effective number
    of samples, (1 - beta^n_k) / (1 - beta), so that samples beyond 1 / (1 - beta) hardly add to it, and is scaled to a
    mean of 1 (Cui et al. 2019, arXiv 1901.05555). A class without samples weighs 1.

    Args:
        counts: int64 (K,), the training samples of each class.
        beta: of "effective", in [0, 1).
    """
    if method == "none":
        return None
    assert counts is not None, "class weights need the training targets"
    weights, seen = np.ones(len(counts)), counts > 0
    present = counts[seen]
    if method == "balanced":
        weights[seen] = present.sum() / (len(present) * present)
    else:
        inverse = (1 - beta) / (1 - beta**present)
        weights[seen] = inverse / inverse.mean()
    return weights.astype(np.float32)
