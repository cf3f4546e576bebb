"""Which samples an epoch of training draws from data whose classes are of unequal size."""

import numpy as np

METHODS = ("none", "weighted", "oversample", "undersample")


def draw(targets: np.ndarray, method: str, rng: np.random.Generator) -> np.ndarray:
    """Return the sample numbers of one epoch, int64 and shuffled.

    Args:
        targets: int64 (N,) class numbers; a class without a sample is never drawn.
        method: one of `METHODS`:
            "none": every sample once;
            "weighted": N samples with replacement, every class with the same probability;
            "oversample": every class as often as the largest: all of its samples, and again from the start;
            "undersample": every class as often as the smallest: other samples of the larger ones in each epoch.
    """
    assert method in METHODS, method
    if method == "none":
        return rng.permutation(len(targets))
    members = [np.flatnonzero(targets == number) for number in np.unique(targets)]
    if method == "weighted":
        counts = rng.multinomial(len(targets), np.full(len(members), 1 / len(members)))
        return rng.permutation(np.concatenate([rng.choice(m, n) for m, n in zip(members, counts, strict=True)]))
    each = epoch_size(targets, method) // len(members)
    return rng.permutation(np.concatenate([cycle(samples, each, rng) for samples in members]))


def epoch_size(targets: np.ndarray, method: str) -> int:
    """How many samples `draw` returns."""
    if method in ("none", "weighted"):
        return len(targets)
    counts = np.unique(targets, return_counts=True)[1]
    return int(len(counts) * (counts.max() if method == "oversample" else counts.min()))


def cycle(samples: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` of the samples; none is drawn once more before all have been drawn as often."""
    rounds = [rng.permutation(samples) for _ in range(-(-count // len(samples)))]
    return np.concatenate([samples[:0], *rounds])[:count]
