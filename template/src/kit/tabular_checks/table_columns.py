"""What can be wrong with a column of a table, looked at alone and beside the target."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from src.kit.tabular import is_missing, is_numeric, stray_text, to_text

Fault = tuple[str, str]  # a finding's kind, and its sentence

FEW = 30  # rows: of fewer, nothing can be said about leaks and identifiers
MOST_ROWS = 5_000  # that are looked at for leaks, drawn at random
LEAK = 0.99  # score from which a single column predicts the target suspiciously well
UNIQUE = 0.9  # a text column with more different values among the known is no category
FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey 1977)


def describe(column: np.ndarray) -> str:
    """What a column holds, in a sentence."""
    missing = is_missing(column)
    known = column[~missing]
    lack = f", {missing.sum():,} missing ({missing.mean():.1%})" if missing.any() else ""
    if len(known) == 0:
        return "No values."
    if is_numeric(column):
        return f"Numbers from {known.min():.6g} to {known.max():.6g}, mean {known.mean():.6g}{lack}."
    counts = Counter(known)
    value, most = counts.most_common(1)[0]
    return f"{len(counts):,} categories, most often {value[:60]!r} ({most:,} times){lack}."


def column_faults(column: np.ndarray, categories: bool = False) -> Iterator[Fault]:
    """Faults of a column that is no target; `categories` says that its values are names, whatever they look like."""
    missing = is_missing(column)
    known = column[~missing]
    if len(known) == 0:
        yield "column_empty", "It has no value in any row."
        return
    if missing.any():
        rule = "the median" if is_numeric(column) else "a category of their own"
        yield "missing_values", f"{missing.sum():,} of {len(column):,} ({missing.mean():.1%}); they become {rule}."
    different = len(np.unique(known if is_numeric(known) else known.astype(str)))
    if different == 1:
        yield "constant", f"Its only value is {to_text(known[:1])[0]:.60}."
    elif not categories and (stray := stray_text(column)):
        yield "mixed_types", f"It holds numbers, but row {stray[0] + 1} has {stray[1][:60]!r}."
    elif len(known) >= FEW and is_identifier(known, different):
        yield "identifier", f"{different:,} different values in {len(known):,} rows."
    elif is_numeric(column):
        yield from outlier_faults(known)


def is_identifier(known: np.ndarray, different: int) -> bool:
    """Whether the values are names or consecutive numbers of the rows."""
    if not is_numeric(known):
        return different > UNIQUE * len(known)
    return bool(different == len(known) == known.max() - known.min() + 1 and (known == np.floor(known)).all())


def outlier_faults(known: np.ndarray) -> Iterator[Fault]:
    """Values far outside the quartiles."""
    lower, upper = np.quantile(known, (0.25, 0.75))
    reach = FENCE * (upper - lower)
    outside = known[(known < lower - reach) | (known > upper + reach)]
    if reach > 0 and len(outside):
        farthest = outside[np.argmax(np.abs(outside - (lower + upper) / 2))]
        noun, verb = ("values", "lie") if len(outside) > 1 else ("value", "lies")
        share = f"{len(outside):,} {noun} ({len(outside) / len(known):.1%}) {verb}"
        limits = f"{lower - reach:.6g} to {upper + reach:.6g}"
        yield "outliers", f"{share} outside {limits}, the farthest is {farthest:.6g}."


def leak_faults(column: np.ndarray, targets: np.ndarray) -> Iterator[Fault]:
    """A column that predicts the target alone; `targets` are int64 classes or float64 numbers, for every row.

    A small decision tree is asked about rows that it has not seen, in three folds.
    """
    from sklearn.metrics import balanced_accuracy_score, r2_score
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    rows = np.random.default_rng(0).permutation(len(column))[:MOST_ROWS]
    targets, values = targets[rows], to_numbers(column[rows])[:, None]
    classes = targets.dtype == np.int64
    if (
        len(rows) < FEW
        or len(np.unique(values)) < 2
        or (classes and np.unique(targets, return_counts=True)[1].min() < 3)
    ):
        return
    folds = (StratifiedKFold if classes else KFold)(3, shuffle=True, random_state=0)
    kind, score = (DecisionTreeClassifier, balanced_accuracy_score) if classes else (DecisionTreeRegressor, r2_score)
    predicted = cross_val_predict(kind(max_depth=8, min_samples_leaf=3, random_state=0), values, targets, cv=folds)
    if (found := score(targets, predicted)) >= LEAK:
        name = "balanced accuracy" if classes else "R2"
        yield "leaking", f"Alone it predicts the target with a {name} of {found:.3f}: is it known before the target is?"


def to_numbers(column: np.ndarray) -> np.ndarray:
    """The column as float64: missing numbers below all others, texts numbered in alphabetical order."""
    if is_numeric(column):
        known = column[np.isfinite(column)]
        return np.where(np.isfinite(column), column, known.min() - 1 if len(known) else 0.0)
    return np.unique([value or "" for value in column], return_inverse=True)[1].astype(np.float64)
