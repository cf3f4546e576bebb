"""What a run's curves say: one verdict with its evidence. It tells a run that failed from one that has finished."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MIN_EPOCHS = 3
RISE = 1.10  # last validation loss / its best: more is over-fitting
GAP = 2.0  # validation loss / training loss at the best epoch: more is over-fitting too
SMALL = 0.10  # but not if they differ by less than this share of the first loss, where both are nearly nothing
GAIN = 0.99  # best loss of the last third of the epochs / best before: less is still learning, unless
#              the second half of that third brought less than this: a curve that has flattened
STILL = 20  # still learning only if the best epoch is in the last twentieth (at least the last epoch)
TREND = 5  # or if the last fifth of the epochs, at least so many, rises by more than its noise
LEARNED = 0.90  # lowest training loss / first: more is under-fitting
ANNEALED = 0.10  # last learning rate / highest: a lower one flattens every curve
SURE = 3  # standard errors of a slope that is no accident
MARGIN = 0.01  # a score above its baseline by less, or by less than two standard errors, is no better

Rows = Sequence[Mapping[str, Any]]


def advice(rows: Rows, evaluation: Mapping[str, Any] | None = None) -> str:
    """Return a verdict and its evidence on the rows of metrics.jsonl, by the first rule that applies.

    1. A loss isn't finite: diverged.
    2. Fewer than three epochs: too few to judge, or not trained at all.
    3. No score is better than its baseline, what the best answer that ignores the input scores: failed, or not learned
       yet if it is still rising.
    4. The last validation loss is over 1.10 times its best while the training loss kept falling: over-fitting.
    5. The training loss never fell below 0.90 of its first value: under-fitting.
    6. Loss or score still improved at the end and had not flattened: still learning.
    7. At the best epoch, the validation loss is over twice the training loss, and by more than a tenth of the first
       loss: over-fitting.
    8. The learning rate ended below a tenth of its peak: finished, and flat by design.
    9. Otherwise it has converged.

    Args:
        evaluation: the evaluation of the validation split, whose `baseline_<score>` are the baselines.
    """
    losses = [(row["train/loss"], row["val/loss"]) for row in rows if "train/loss" in row and "val/loss" in row]
    for number, row in enumerate(rows, 1):
        if not all(math.isfinite(row.get(name, 0.0)) for name in ("train/loss", "val/loss")):
            return (
                f"Diverged: the loss is not finite in epoch {number}. Lower optimizer.lr or set "
                "trainer.gradient_clip_val."
            )
    if rows and rows[-1].get("epoch") == 0:
        return "Not trained: the scores are those of the network as it starts."
    if len(rows) < MIN_EPOCHS:
        return f"Too few epochs to judge: train for at least {MIN_EPOCHS}."
    evaluation = evaluation or {}
    return (
        failed(rows, evaluation)
        or (over_fitted(losses) if losses else "")
        or still_learning(rows, evaluation)
        or (wide_gap(losses) if losses else "")
        or ended(rows, evaluation)
    )


def main_score(rows: Rows, evaluation: Mapping[str, Any]) -> str:
    """The score to judge by: one with a baseline, or the first of which more is better; "" if there is none."""
    names = [name for name in rows[-1] if name.startswith("val/") and name != "val/loss"]
    known = [name for name in names if f"baseline_{name[4:]}" in evaluation]
    higher = [name for name in names if name[4:] not in ("rmse", "mae")]
    return next(iter([*known, *higher]), "")


def column(rows: Rows, name: str) -> list[float]:
    """A column's values, of the rows that have one."""
    return [row[name] for row in rows if row.get(name) is not None]


def failed(rows: Rows, evaluation: Mapping[str, Any]) -> str:
    """Rule 3."""
    name = main_score(rows, evaluation)
    key = f"baseline_{name[4:]}"
    if key not in evaluation:
        return ""
    values, baseline = column(rows, name), float(evaluation[key])
    variance = baseline * (1 - baseline) if 0 < baseline < 1 else 0.0
    margin = max(MARGIN, 2 * math.sqrt(variance / max(evaluation.get("samples", 1), 1)))
    if max(values) > baseline + margin:
        return ""
    what = f"{name} was {max(values):.3f} at best, and an answer that ignores the input scores {baseline:.3f}"
    train = column(rows, "train/loss")
    if rises(values) or (train and rises([-value for value in train])):
        return f"Not learned yet: {what}, but it still improves. Raise trainer.max_epochs or optimizer.lr."
    how = f"; the training loss went from {train[0]:.3g} to {min(train):.3g}" if train else ""
    if train and min(train) < train[0] / 2:
        return (
            f"Failed: {what}{how}, so the samples are learned by heart. Check that inputs and targets belong together "
            "and that both splits hold the same kind of data."
        )
    return f"Failed: {what}{how}. Check the data (scripts/validate_data.py), then try ten times or a tenth of the rate."


def over_fitted(losses: Sequence[tuple[float, float]]) -> str:
    """Rules 4 and 5, from pairs of training and validation loss."""
    train, val = zip(*losses, strict=True)
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
    return ""


def still_learning(rows: Rows, evaluation: Mapping[str, Any]) -> str:
    """Rule 6."""
    name, losses = main_score(rows, evaluation), column(rows, "val/loss")
    if name and rises(values := column(rows, name)):
        return f"Still learning: {name} kept rising to the end, to {max(values):.3f}. Raise trainer.max_epochs."
    if losses and rises([-loss for loss in losses]):
        return (
            f"Still learning: the validation loss kept falling to the end, to {min(losses):.3g}. "
            "Raise trainer.max_epochs."
        )
    return ""


def rises(values: Sequence[float]) -> bool:
    """Whether values still improve at the end: the best is new, or the last fifth rises by more than its noise."""
    count = len(values)
    if count < MIN_EPOCHS:
        return False
    best, third = max(range(count), key=values.__getitem__), max(count // 3, 1)
    before, middle = max(values[:-third]), max(values[: -max(third // 2, 1)])
    noise = 2 * float(np.std(np.diff(values[-max(third, 2) :]))) / math.sqrt(2)
    new = best >= count - math.ceil(count / STILL) and values[best] - before > max((1 - GAIN) * abs(before), noise)
    if new and values[best] - middle > (1 - GAIN) * abs(middle):
        return True
    last = np.asarray(values[-max(count // 5, 1) :], float)
    if len(last) < TREND:
        return False
    steps = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float((steps * last).sum() / (steps**2).sum())
    rest = last - last.mean() - slope * steps
    error = math.sqrt((rest**2).sum() / (len(last) - 2) / (steps**2).sum())
    return slope > SURE * error and slope * len(last) > (1 - GAIN) * abs(last.mean())


def wide_gap(losses: Sequence[tuple[float, float]]) -> str:
    """Rule 7."""
    train, val = zip(*losses, strict=True)
    best = min(range(len(val)), key=val.__getitem__)
    if val[best] <= GAP * train[best] or val[best] - train[best] < SMALL * max(train[0], val[0]):
        return ""
    return (
        f"Over-fitting: at its best (epoch {best + 1}) the validation loss is {val[best]:.3g}, the training loss "
        f"{train[best]:.3g}. Try stronger augmentation, more weight decay, or more data."
    )


def ended(rows: Rows, evaluation: Mapping[str, Any]) -> str:
    """Rules 8 and 9."""
    name, losses, rates = main_score(rows, evaluation), column(rows, "val/loss"), column(rows, "lr")
    facts = []
    if losses:
        facts.append(f"the validation loss was best in epoch {losses.index(min(losses)) + 1} ({min(losses):.3g})")
    if name:
        values, baseline = column(rows, name), evaluation.get(f"baseline_{name[4:]}")
        against = "" if baseline is None else f", where an answer that ignores the input scores {baseline:.3f}"
        facts.append(f"{name} was best in epoch {values.index(max(values)) + 1} ({max(values):.3f}{against})")
    found = " and ".join(facts)
    if rates and rates[-1] < ANNEALED * max(rates):
        share = rates[-1] / max(rates)
        return (
            f"Finished: {found}. The learning rate ended at {share:.1%} of its peak, which flattens every curve: only "
            "a run with more trainer.max_epochs tells whether more would help."
        )
    return f"Converged: {found}; the last epochs improved neither by more than noise."
