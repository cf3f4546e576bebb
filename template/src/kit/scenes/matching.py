"""Predicted objects against true ones at one overlap: curves over the score, the best threshold, confused classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.kit.report import BLUE, FAINT, VERMILLION, add_axes, draw_confusion, new_figure, save_figure
from src.kit.scenes.scores import SHOWN_SCORE, Objects, coco_scores, count_matches

OVERLAP = 0.5  # from which a prediction finds an object
NOTHING = "nothing"  # what an invented object shows, and what a missed one is taken for

Kind = Literal["bbox", "segm"]
Kept = Sequence[tuple[Objects, Objects]]  # predicted and true, of each image


@dataclass(frozen=True)
class Ranked:
    """Predictions in all images, the surest first; those in crowds are left out."""

    scores: np.ndarray  # float64 (D,), falling
    right: np.ndarray  # bool (D,)
    objects: int  # true ones

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the predictions up to each one, float64 (D,) each."""
        found = np.cumsum(self.right)
        return found / np.arange(1, len(found) + 1), found / max(1, self.objects)

    def f1(self) -> np.ndarray:
        """F1 of the predictions up to each one, float64 (D,)."""
        f1: np.ndarray = 2 * np.cumsum(self.right) / (np.arange(1, len(self.right) + 1) + max(1, self.objects))
        return f1

    def threshold(self) -> float:
        """The score with the best F1, halfway to the next lower one; `SHOWN_SCORE` if nothing is found."""
        if not self.right.any():
            return SHOWN_SCORE
        last = np.append(self.scores[1:] < self.scores[:-1], True)  # of those with the same score
        best = int((self.f1() * last).argmax())
        return float(self.scores[best : best + 2].mean())

    def at(self, least: float) -> dict[str, float]:
        """Precision, recall and F1 of the predictions with at least this score."""
        shown = self.scores >= least
        found = int(self.right[shown].sum())
        precision, recall = found / max(1, int(shown.sum())), found / max(1, self.objects)
        return {"f1": 2 * precision * recall / max(precision + recall, 1e-12), "precision": precision, "recall": recall}


def rank(counter: Any) -> list[Ranked]:
    """Each class's predictions at an overlap of half, from what `count_matches` returns."""
    images, ranges = len(counter.params.imgIds), len(counter.params.areaRng)
    ranked = []
    for k in range(len(counter.params.catIds)):
        first = k * ranges * images  # of all sizes
        rows = [row for row in counter.evalImgs[first : first + images] if row]
        scores = np.concatenate([np.empty(0), *(row["dtScores"] for row in rows)])
        right = np.concatenate([np.empty(0), *(row["dtMatches"][0] for row in rows)]) > 0
        counted = np.flatnonzero(np.concatenate([np.empty(0), *(row["dtIgnore"][0] for row in rows)]) == 0)
        order = counted[np.argsort(-scores[counted], kind="stable")]
        objects = sum(int((row["gtIgnore"] == 0).sum()) for row in rows)
        ranked.append(Ranked(scores[order], right[order], objects))
    return ranked


def pool(ranked: Sequence[Ranked]) -> Ranked:
    """All classes together."""
    scores, right = (np.concatenate([getattr(each, name) for each in ranked]) for name in ("scores", "right"))
    order = np.argsort(-scores, kind="stable")
    return Ranked(scores[order], right[order], sum(each.objects for each in ranked))


def object_scores(kept: Kept, classes: Sequence[str], kind: Kind, least: float | None) -> dict[str, Any]:
    """`coco_scores`, and what the predictions with at least the score `least` are worth at an overlap of half.

    Returns:
        Besides `coco_scores`: threshold (`least`, or if that is None the score with the best F1 here), f1, precision
        and recall of all classes together; precision and recall of each class in `per_class`; confusion_matrix
        (rows: true, columns: predicted) of the `confusion_classes`, the last of which is "nothing".
    """
    counter = count_matches(kept, classes, kind)
    ranked = rank(counter)
    whole = pool(ranked)
    least = whole.threshold() if least is None else least
    scores = coco_scores(kept, classes, kind, counter=counter)
    for row, each in zip(scores["per_class"], ranked, strict=True):
        row |= {name: value for name, value in each.at(least).items() if name != "f1"}
    matrix = confuse_all(kept, len(classes), least, kind)
    confused = {"confusion_classes": [*classes, NOTHING], "confusion_matrix": matrix.tolist()}
    return scores | {"threshold": least} | whole.at(least) | confused


def confuse_all(kept: Kept, classes: int, least: float, kind: Kind) -> np.ndarray:
    """The sum of `confuse` over the images."""
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for pair in kept:  # one at a time: thousands of them would fill the memory
        matrix += confuse(*pair, classes, least, kind)
    return matrix


def confuse(predicted: Objects, true: Objects, classes: int, least: float, kind: Kind = "bbox") -> np.ndarray:
    """An image's confusion matrix int64 (K + 1, K + 1): true class by predicted one, the last of both is nothing.

    The surest prediction chooses first: the object of its class that it overlaps most, by half or more. What is left
    then takes objects of other classes likewise. Predictions that lie in a crowd of their class don't count.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    chosen = np.flatnonzero(predicted.scores >= least)
    chosen = chosen[np.argsort(-predicted.scores[chosen], kind="stable")]
    shared = overlaps(predicted, true, kind)
    free = ~true.crowd
    for own in (True, False):
        left = []
        for k in chosen:
            same = true.labels == predicted.labels[k]
            fits = shared[k] * (free & (same | (not own)))
            if len(fits) and fits.max() >= OVERLAP:
                free[fits.argmax()] = False
                matrix[true.labels[fits.argmax()], predicted.labels[k]] += 1
            elif not (shared[k] * (true.crowd & same) >= OVERLAP).any():
                left.append(k)
        chosen = np.array(left, np.int64)
    np.add.at(matrix[classes], predicted.labels[chosen], 1)
    np.add.at(matrix[:, classes], true.labels[free], 1)
    return matrix


def overlaps(predicted: Objects, true: Objects, kind: Kind) -> np.ndarray:
    """Intersection over union of boxes or masks, of a crowd the share of the prediction: float64 (D, T)."""
    from pycocotools.mask import iou

    if not len(predicted) or not len(true):
        return np.zeros((len(predicted), len(true)))
    if kind == "segm":
        return np.asarray(iou(predicted.outlines, true.outlines, true.crowd))
    corners = (np.asarray(each.boxes, np.float64) for each in (predicted, true))
    sides = (np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in corners)
    return np.asarray(iou(*sides, true.crowd))


def object_rows(kept: Kept, least: float | None = None, kind: Kind = "bbox") -> list[dict[str, Any]]:
    """For each image the numbers of true objects, of predicted ones worth showing, and how many are found or wrong.

    Counted as in `confuse`; worth showing is a score of `least`, None for `SHOWN_SCORE`.
    """
    rows = []
    least = SHOWN_SCORE if least is None else least
    for predicted, true in kept:
        matrix = confuse(predicted, true, 1 + max([-1, *predicted.labels, *true.labels]), least, kind)
        objects, shown, found = matrix[:-1].sum(), matrix[:, :-1].sum(), np.trace(matrix)
        counts = {
            "true": objects,
            "predicted": shown,
            "found": found,
            "missed": objects - found,
            "wrong": shown - found,
        }
        rows.append({name: int(count) for name, count in counts.items()})
    return rows


def draw_matches(
    kept: Kept, classes: Sequence[str], kind: Kind, least: float | None, folder: Path, prefix: str
) -> list[Path]:
    """Write `folder/prefix-curves.png`, precision over recall and F1 over the score, and `prefix-confusion.png`."""
    ranked = rank(count_matches(kept, classes, kind))
    whole = pool(ranked)
    least = whole.threshold() if least is None else least
    figure = new_figure(10.4, 3.9, None)
    curve, scores = (add_axes(figure, left, 0.55, 4.25, 2.9) for left in (0.75, 5.9))
    for each, colour, width in [*((each, FAINT, 0.7) for each in ranked if each.objects), (whole, BLUE, 2.0)]:
        precision, recall = each.precision_recall()
        curve.plot(recall, precision, color=colour, linewidth=width, alpha=1 if each is whole else 0.4)
        scores.plot(each.scores, each.f1(), color=colour, linewidth=width, alpha=1 if each is whole else 0.4)
    point = whole.at(least)
    curve.plot(point["recall"], point["precision"], "o", color=VERMILLION)
    scores.axvline(least, color=VERMILLION, linewidth=1.2)
    curve.set_title("Precision over recall")
    scores.set_title(f"F1 {point['f1']:.3f} from a score of {least:.2f}")
    for axes, across, up in ((curve, "recall", "precision"), (scores, "least score", "F1")):
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel=across, ylabel=up)
        axes.grid()
    matrix = confuse_all(kept, len(classes), least, kind)
    return [
        save_figure(figure, folder / f"{prefix}-curves.png"),
        draw_confusion(matrix, [*classes, NOTHING], folder / f"{prefix}-confusion.png"),
    ]
