"""What the classification losses of both frameworks read from `cfg.loss`."""

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError


def class_weights(cfg: DictConfig, counts: np.ndarray | None) -> np.ndarray | None:
    """Return how much the errors of each class count, float32 (K,), or None where all count the same.

    "balanced" is n / (K n_k), so that every class counts as much as any other; "effective" divides by the effective
    number of samples, (1 - beta^n_k) / (1 - beta), so that samples beyond 1 / (1 - beta) hardly add to it, and is
    scaled to a mean of 1 (Cui et al., 2019, https://arxiv.org/abs/1901.05555). A class without samples counts 1.

    Args:
        counts: int64 (K,), the training samples of each class.
    """
    if cfg.loss.class_weights == "none":
        return None
    assert counts is not None, "class weights need the training targets"
    weights, seen = np.ones(len(counts)), counts > 0
    present = counts[seen]
    if cfg.loss.class_weights == "balanced":
        weights[seen] = present.sum() / (len(present) * present)
    else:
        inverse = (1 - cfg.loss.beta) / (1 - cfg.loss.beta**present)
        weights[seen] = inverse / inverse.mean()
    return weights.astype(np.float32)


def label_smoothing(cfg: DictConfig) -> float:
    """Return `cfg.loss.label_smoothing`, which must lie in [0, 1)."""
    value = float(cfg.loss.label_smoothing)
    if not 0 <= value < 1:
        raise UserError(f"loss.label_smoothing must be at least 0 and below 1, but it is {value:g}; 0.1 is usual.")
    return value


def focal_gamma(cfg: DictConfig) -> float:
    """Return `cfg.loss.gamma` of the focal loss, 0 for cross-entropy."""
    gamma = float(cfg.loss.gamma) if cfg.loss.name == "focal" else 0.0
    if not gamma >= 0:
        raise UserError(f"loss.gamma must be 0 or more, but it is {gamma:g}; 2 is usual.")
    return gamma
