"""Read the curves of a run: over-fitting, under-fitting, still learning, or converged."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

MIN_EPOCHS = 3
RISE = 1.10  # last validation loss / its best: more is over-fitting
GAP = 2.0  # validation loss / training loss at the best epoch: more is over-fitting too
GAIN = 0.99  # best loss of the last third of the epochs / best before: less is still learning
STILL = 20  # still learning only if the best epoch is in the last twentieth (at least the last epoch)
LEARNED = 0.90  # lowest training loss / first: more is under-fitting


def advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one or two sentences on the rows of metrics.jsonl, by the first rule that applies.

    1. A loss isn't finite: training diverged.
    2. Fewer than three epochs: too few to judge.
    3. The last validation loss is over 1.10 times its best while the training loss kept falling: over-fitting.
    4. The training loss never fell below 0.90 of its first value: under-fitting.
    5. The best validation loss of the last third of the epochs is below 0.99 of the best before it, and the best epoch
       is among the last twentieth: still learning.
    6. At the best epoch, the validation loss is over twice the training loss: over-fitting.
    7. Otherwise training has converged.

    Without a validation loss, the score alone decides between "still learning" and "converged".
    """
    score = next((name for name in rows[-1] if name.startswith("val/")), None) if rows else None
    if score and score != "val/loss":
        return advice_by_score([row[score] for row in rows], score)
    pairs = [(row["train/loss"], row["val/loss"]) for row in rows if "train/loss" in row and "val/loss" in row]
    bad = next((number for number, pair in enumerate(pairs, 1) if not all(map(math.isfinite, pair))), None)
    if bad:
        return f"Diverged: the loss is not finite in epoch {bad}. Lower optimizer.lr or set trainer.gradient_clip_val."
    if len(pairs) < MIN_EPOCHS:
        return f"Too few epochs to judge: train for at least {MIN_EPOCHS}."
    train, val = zip(*pairs, strict=True)
    best = min(range(len(val)), key=val.__getitem__)
    if val[-1] > RISE * val[best] and train[-1] < train[best]:
        return (
            f"Over-fitting since epoch {best + 1}: the validation loss rose from {val[best]:.3g} to {val[-1]:.3g} "
            "while the training loss kept falling. Try trainer.early_stopping, stronger augmentation, more "
            "weight decay, or more data."
        )
    if min(train) > LEARNED * train[0]:
        return (
            f"Under-fitting: the training loss only fell from {train[0]:.3g} to {min(train):.3g}. "
            "Try a tenth or ten times optimizer.lr, a larger model, or more epochs."
        )
    third = len(val) - max(len(val) // 3, 1)
    if at_the_end(best, len(val)) and val[best] < GAIN * min(val[:third]):
        return "Still learning: the validation loss kept falling to the end. Raise trainer.max_epochs."
    if val[best] > GAP * train[best]:
        return (
            f"Over-fitting: at its best (epoch {best + 1}) the validation loss is {val[best]:.3g}, the training loss "
            f"{train[best]:.3g}. Try stronger augmentation, more weight decay, or more data."
        )
    return f"Converged: the validation loss was best in epoch {best + 1} ({val[best]:.3g}); more epochs will not help."


def at_the_end(best: int, epochs: int) -> bool:
    """Whether the best epoch (from 0) is among the last ones; a loss that has been flat since is not falling."""
    return best >= epochs - math.ceil(epochs / STILL)


def advice_by_score(values: Sequence[float], name: str) -> str:
    """Judge by a score for which higher is better."""
    if len(values) < MIN_EPOCHS:
        return f"Too few epochs to judge: train for at least {MIN_EPOCHS}."
    third = len(values) - max(len(values) // 3, 1)
    best = max(range(len(values)), key=values.__getitem__)
    if at_the_end(best, len(values)) and values[best] * GAIN > max(values[:third]):
        return f"Still learning: {name} kept rising to the end, to {values[best]:.3f}. Raise trainer.max_epochs."
    return f"Converged: {name} was best in epoch {best + 1} ({values[best]:.3f}); more epochs will not help."
