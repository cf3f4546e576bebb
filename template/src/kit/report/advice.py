"""What the curves of a run say: over-fitting, under-fitting, still learning, or done."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

ENOUGH_EPOCHS = 3
RISE = 1.10  # validation loss over its best: more is over-fitting
GAP = 2.0  # validation over training loss at the best epoch: more is over-fitting too
GAIN = 0.99  # best loss of the last third of the epochs over the best before: less is still learning
STILL = 20  # still learning only if the best epoch is in this part of them (a twentieth, at least the last one)
LEARNED = 0.90  # lowest training loss over the first: more is hardly any learning


def advice(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one or two sentences about the losses of metrics.jsonl's rows; the first rule that holds speaks.

    1. A loss isn't finite: the training diverged.
    2. Fewer than three epochs: too few to judge.
    3. The last validation loss is over 1.10 times its best while the training loss went on falling: over-fitting.
    4. The training loss never fell below 0.90 of its first value: under-fitting.
    5. The best validation loss of the last third of the epochs is below 0.99 of the best before it, and the best epoch
       is among the last twentieth: still learning.
    6. At the best epoch, the validation loss is over twice the training loss: over-fitting.
    7. Otherwise the training has converged.

    Without a validation loss, as in detection, only the score tells whether it was still rising.
    """
    score = next((name for name in rows[-1] if name.startswith("val/")), None) if rows else None
    if score and score != "val/loss":
        return advice_by_score([row[score] for row in rows], score)
    pairs = [(row["train/loss"], row["val/loss"]) for row in rows if "train/loss" in row and "val/loss" in row]
    bad = next((number for number, pair in enumerate(pairs, 1) if not all(map(math.isfinite, pair))), None)
    if bad:
        return f"Diverged: the loss is not finite in epoch {bad}. Lower optimizer.lr or set trainer.gradient_clip_val."
    if len(pairs) < ENOUGH_EPOCHS:
        return f"Too few epochs to judge: the curves say something from {ENOUGH_EPOCHS} epochs on."
    train, val = zip(*pairs, strict=True)
    best = min(range(len(val)), key=val.__getitem__)
    if val[-1] > RISE * val[best] and train[-1] < train[best]:
        return (
            f"Over-fitting since epoch {best + 1}: the validation loss rose from {val[best]:.3g} to {val[-1]:.3g} "
            "while the training loss went on falling. Use trainer.early_stopping, stronger augmentation, weight decay, "
            "or more data."
        )
    if min(train) > LEARNED * train[0]:
        return (
            f"Under-fitting: the training loss only went from {train[0]:.3g} to {min(train):.3g}. "
            "Try another optimizer.lr (a tenth, ten times), a larger model, or more epochs."
        )
    third = len(val) - max(len(val) // 3, 1)
    if at_the_end(best, len(val)) and val[best] < GAIN * min(val[:third]):
        return "Still learning: the validation loss was falling to the end. Raise trainer.max_epochs."
    if val[best] > GAP * train[best]:
        return (
            f"Over-fitting: at its best (epoch {best + 1}) the validation loss is {val[best]:.3g}, the training loss "
            f"{train[best]:.3g}. Use stronger augmentation, weight decay, or more data."
        )
    return f"Converged: the validation loss was best in epoch {best + 1} ({val[best]:.3g}); more epochs will not help."


def at_the_end(best: int, epochs: int) -> bool:
    """Whether the best epoch, counted from 0, is among the last: a loss that has been flat since is not falling."""
    return best >= epochs - math.ceil(epochs / STILL)


def advice_by_score(values: Sequence[float], name: str) -> str:
    """What a score says that is better when it is higher."""
    if len(values) < ENOUGH_EPOCHS:
        return f"Too few epochs to judge: the curves say something from {ENOUGH_EPOCHS} epochs on."
    third = len(values) - max(len(values) // 3, 1)
    best = max(range(len(values)), key=values.__getitem__)
    if at_the_end(best, len(values)) and values[best] * GAIN > max(values[:third]):
        return f"Still learning: {name} was rising to the end, to {values[best]:.3f}. Raise trainer.max_epochs."
    return f"Converged: {name} was best in epoch {best + 1} ({values[best]:.3f}); more epochs will not help."
