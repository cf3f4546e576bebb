"""Check a table: its columns, rows, target and splits."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import SPLITS, build_dataset, call_with_keys, dataset_module
from src.kit.checks import KINDS, Checker, Entry, Kind, Source
from src.kit.config import UserError
from src.kit.tabular import (
    MOST_CATEGORIES,
    Form,
    Table,
    interpret,
    is_missing,
    is_numeric,
    many_categories,
    read_target,
    recognise_columns,
    stray_text,
    to_text,
)

__all__ = ["check_table", "find_checker"]

Fault = tuple[str, str]  # a finding's kind, and its sentence

FEW = 30  # with fewer rows, nothing can be said about leaks and identifiers
MOST_ROWS = 5_000  # random rows used to find leaks
LEAK = 0.99  # a single column that predicts the target this well is suspicious
UNIQUE = 0.9  # a text column with a larger share of different values holds no categories
FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey 1977)
LISTED = 10  # rows of a group that a finding names

DROP = "List the column in data.columns.drop"
KINDS.update(
    table_unusable=Kind("error", "Unusable table", "Fix the file or the keys of data."),
    column_empty=Kind("error", "Columns without values", f"{DROP}."),
    mixed_types=Kind(
        "error",
        "Text among numbers",
        "Fix the values, leave them empty, or list the column in data.columns.categories.",
    ),
    doubtful_form=Kind("warning", "Columns that can be read in two ways", "Set the key if the reading is wrong."),
    many_categories=Kind("warning", "Columns with many categories", f"{DROP}, or group its values."),
    leaking=Kind("warning", "Columns that leak the target", f"{DROP} if it is only known together with the target."),
    target_missing=Kind("warning", "Rows without a target", "They are ignored. Fill in the target if it is known."),
    identifier=Kind("warning", "Columns that identify rows", f"{DROP}: it says nothing about new rows."),
    constant=Kind("warning", "Constant columns", f"{DROP}: it carries no information."),
    row_leak=Kind("warning", "Equal rows in two splits", "Scores may look too good. Keep one of them."),
    row_conflict=Kind("warning", "Equal rows with different targets", "Find out which target is right."),
    duplicate_rows=Kind("warning", "Equal rows within a split", "Keep one, unless they are separate cases."),
    missing_values=Kind("note", "Missing values", "Find out whether they are missing for a reason."),
    outliers=Kind("note", "Outliers", "Find out whether they are mistakes."),
    column=Kind("note", "Columns", "What was read."),
)


def check_table(cfg: DictConfig) -> Source:
    """Check the table of `cfg.data`. Findings name columns, and count rows from 1 without the header.

    Raises:
        UserError: the file can't be read, or it lacks the target column.
    """
    raw: Table = call_with_keys(dataset_module(cfg.data).read_whole, cfg.data)
    path = Path(cfg.data.get("root") or cfg.data.name)
    source = Source(path)
    source.items = source.unit = "rows"
    recognised = recognise_columns(raw, cfg.data)
    strays = {name for name, form in recognised.forms.items() if stray_text(raw.columns[name], form)}
    table = interpret(raw, {name: form for name, form in recognised.forms.items() if name not in strays})
    target = read_target(table, cfg.data)
    name = cfg.data.target.column
    if lost := int(is_missing(table.columns[name]).sum()):
        source.add("target_missing", name, f"{lost:,} of {len(table):,} rows.")
    features = table.drop(name)
    read_as = dict(recognised.notes)
    for column, values in table.columns.items():
        how = f" {read_as[column].partition(' holds ')[2].capitalize()}." if column in read_as else ""
        source.add("column", column, f"{'The target. ' if column == name else ''}{describe(values)}{how}")
    for kind, pairs in (
        ("doubtful_form", recognised.doubts),
        ("many_categories", many_categories(features, MOST_CATEGORIES)),
    ):
        for column, sentence in pairs:
            source.add(kind, column, f"{sentence}.")
    for column, values in features.columns.items():
        for fault in (
            *column_faults(values, recognised.forms.get(column)),
            *leak_faults(values[target.rows], target.values),
        ):
            source.add(fault[0], column, fault[1])
    owners = check_splits(cfg, source, path.name, len(table))
    check_rows(source, features.take(target.rows), target.values, target.rows.tolist(), owners)
    source.check_balance()
    return source


def check_splits(cfg: DictConfig, source: Source, name: str, rows: int) -> dict[int, str]:
    """Count each split's rows and classes before resampling; returns the split of each row."""
    plain = OmegaConf.merge(cfg, {"data": {"resample": "none"}})
    owners: dict[int, str] = {}
    try:
        for split in SPLITS:
            data = build_dataset(plain, split)
            source.entries += [Entry(name, split)] * len(data)
            source.classes = data.classes
            source.counts[split].update(dict.fromkeys(data.classes, 0))
            source.counts[split].update(data.classes[number] for number in data.targets if data.classes)
            owners |= dict.fromkeys(data.ids.tolist(), split)
    except UserError as error:
        source.entries = [Entry(name, "")] * rows
        if not any(finding.severity == "error" for finding in source.findings):  # which the error would repeat
            source.add("table_unusable", name, str(error))
    return owners


def check_rows(
    source: Source, features: Table, targets: np.ndarray, numbers: list[int], owners: dict[int, str]
) -> None:
    """Report rows equal in all columns but the target; `numbers` are their positions in the whole table."""
    matrix = np.stack([to_numbers(column) for column in features.columns.values()], axis=1)
    _, groups, counts = np.unique(matrix, axis=0, return_inverse=True, return_counts=True)
    groups = groups.ravel()
    members: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(counts[groups] > 1).tolist():
        members[int(groups[index])].append(index)
    for indices in members.values():
        rows = [numbers[index] for index in indices]
        named = [f"{row + 1} ({owners[row]})" if row in owners else f"{row + 1}" for row in rows[:LISTED]]
        sentence = f"{len(rows):,} rows are equal: {', '.join(named)}{', ...' if len(rows) > LISTED else ''}."
        apart = len({owners.get(row) for row in rows}) > 1
        differ = len(np.unique(targets[indices])) > 1
        source.add(
            "row_conflict" if differ else "row_leak" if apart else "duplicate_rows", f"row {rows[0] + 1}", sentence
        )


def describe(column: np.ndarray) -> str:
    """Describe a column in one sentence."""
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


def column_faults(column: np.ndarray, form: Form | None = None) -> Iterator[Fault]:
    """Faults of a feature, whose texts mostly have this form, if they have one."""
    missing = is_missing(column)
    known = column[~missing]
    if len(known) == 0:
        yield "column_empty", "It has no value in any row."
        return
    if missing.any():
        rule = "the median" if is_numeric(column) else "a category of their own"
        yield "missing_values", f"{missing.sum():,} of {len(column):,} ({missing.mean():.1%}); replaced by {rule}."
    different = len(np.unique(known if is_numeric(known) else known.astype(str)))
    if different == 1:
        yield "constant", f"Its only value is {to_text(known[:1])[0]:.60}."
    elif form and (stray := stray_text(column, form)):
        held = "dates" if form.kind == "date" else "numbers"
        yield "mixed_types", f"It holds {held}, but row {stray[0] + 1} has {stray[1][:60]!r}."
    elif len(known) >= FEW and is_identifier(known, different) and not (form and form.kind == "date"):
        yield "identifier", f"{different:,} different values in {len(known):,} rows."
    elif is_numeric(column):
        yield from outlier_faults(known)


def is_identifier(known: np.ndarray, different: int) -> bool:
    """Whether the values just name or number the rows, but for a few that come twice or were taken out."""
    if different <= UNIQUE * len(known) or not is_numeric(known):
        return different > UNIQUE * len(known)
    return bool(different > UNIQUE * (known.max() - known.min() + 1) and (known == np.floor(known)).all())


def outlier_faults(known: np.ndarray) -> Iterator[Fault]:
    """Report values outside Tukey's fences."""
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
    """Report a column that predicts the target alone, in three-fold cross-validation of a small decision tree.

    `targets` are int64 classes or float64 numbers (N,).
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
    """The column as float64: missing numbers below all others, texts numbered alphabetically."""
    if is_numeric(column):
        known = column[np.isfinite(column)]
        return np.where(np.isfinite(column), column, known.min() - 1 if len(known) else 0.0)
    return np.unique([value or "" for value in column], return_inverse=True)[1].astype(np.float64)


def find_checker(cfg: DictConfig) -> Checker | None:
    """The checker of a table, which is a data set with the key `target`."""
    return check_table if "target" in cfg.data else None
