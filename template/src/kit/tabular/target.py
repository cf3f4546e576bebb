"""Transforms of a skewed target: networks learn the transformed number, scores are in its own unit."""

from collections.abc import Sequence

import numpy as np

from src.kit.errors import UserError

KNOTS = 257  # quantiles of the training targets


def fit_transform(targets: np.ndarray, transform: str, name: str) -> tuple[float, ...]:
    """The quantiles that `transform="quantile"` needs, () for the others.

    Raises:
        UserError: a logarithm of negative numbers.
    """
    if transform == "log" and targets.min() < 0:
        raise UserError(
            f"data.target.transform=log needs numbers of 0 or more, and {name!r} has {targets.min():g}: use quantile."
        )
    if transform != "quantile":
        return ()
    return tuple(np.quantile(targets, np.linspace(0, 1, KNOTS)).tolist())


def transform_target(targets: np.ndarray, transform: str, knots: Sequence[float]) -> np.ndarray:
    """float64 (N,): log(1 + y); or the share of training targets below, as a normal deviate; or the targets."""
    if transform == "log":
        return np.log1p(np.maximum(targets, 0))
    if transform == "quantile":
        return np.interp(targets, *unique_knots(knots))
    return targets


def restore_target(values: np.ndarray, transform: str, knots: Sequence[float]) -> np.ndarray:
    """Undo `transform_target`; beyond the training targets, a quantile gives the nearest of them."""
    if transform == "log":
        return np.expm1(np.minimum(values, 700))
    if transform == "quantile":
        targets, deviates = unique_knots(knots)
        return np.interp(values, deviates, targets)
    return values


def unique_knots(knots: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and their normal deviates, both rising: a value that occurs often has the mean of its shares."""
    from scipy.special import ndtri

    targets, first, counts = np.unique(np.asarray(knots), return_index=True, return_counts=True)
    shares = (first + (counts - 1) / 2) / (len(knots) - 1)
    return targets, ndtri(np.clip(shares, 1 / len(knots) / 2, 1 - 1 / len(knots) / 2))
