"""Make the classes of the training rows equally frequent, with imbalanced-learn."""

from typing import Any

import numpy as np

from src.kit.config import UserError

NEIGHBOURS = 5


def resample(
    inputs: np.ndarray, targets: np.ndarray, numbers: int, method: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return new inputs, targets and, for each of their rows, the number of the old row, -1 for one that is made up.

    - smote: rare classes get rows between neighbours until they are as frequent as the most frequent (Chawla et al.
      2002, https://arxiv.org/abs/1106.1813); of categories the neighbours' most frequent is taken (SMOTE-NC).
    - under: rows of frequent classes are dropped until they are as rare as the rarest.
    - both: every class gets the mean number of rows, by dropping or by SMOTE.

    Args:
        inputs: float32 (N, F), scaled numbers, and category codes from column `numbers` on.
        targets: int64 (N,) classes.

    Raises:
        UserError: SMOTE finds a class with a single row.
    """
    origin = np.arange(len(targets))
    classes, counts = np.unique(targets, return_counts=True)
    size = {"smote": counts.max(), "under": counts.min(), "both": round(len(targets) / len(classes))}[method]
    larger = {int(name): int(size) for name, count in zip(classes, counts, strict=True) if count > size}
    smaller = {int(name): int(size) for name, count in zip(classes, counts, strict=True) if count < size}
    if larger:
        from imblearn.under_sampling import RandomUnderSampler

        sampler = RandomUnderSampler(sampling_strategy=larger, random_state=seed)
        sampler.fit_resample(origin[:, None], targets)
        origin = np.sort(sampler.sample_indices_)
        inputs, targets = inputs[origin], targets[origin]
    if smaller:
        if counts.min() < 2:
            raise UserError(
                f"data.resample={method} cannot make up rows of a class with a single training row: add rows, "
                "or use data.resample=none with loss.class_weights=balanced."
            )
        made = build_smote(inputs, numbers, smaller, min(NEIGHBOURS, counts.min() - 1), seed)
        inputs, targets = made.fit_resample(inputs, targets)
        origin = np.concatenate([origin, np.full(len(targets) - len(origin), -1)])
    return inputs.astype(np.float32), targets.astype(np.int64), origin


def build_smote(inputs: np.ndarray, numbers: int, smaller: dict[int, int], neighbours: int, seed: int) -> Any:
    """SMOTE for numbers, for categories, or for both."""
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

    common = {"sampling_strategy": smaller, "k_neighbors": int(neighbours), "random_state": seed}
    if numbers == inputs.shape[1]:
        return SMOTE(**common)
    if numbers == 0:
        return SMOTEN(**common)
    return SMOTENC(categorical_features=list(range(numbers, inputs.shape[1])), **common)
