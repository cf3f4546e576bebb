"""Check a table: columns, rows, target and splits."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import SPLITS, build_dataset, call_with_keys, dataset_module
from src.kit.checks import KINDS, Entry, Kind, Source
from src.kit.config import UserError
from src.kit.tabular import Table, is_missing, read_target
from src.kit.tabular_checks.table_columns import column_faults, describe, leak_faults, to_numbers

DROP = "List the column in data.columns.drop"
LISTED = 10  # rows of a group that a finding names

KINDS.update(
    table_unusable=Kind("error", "Tables that cannot be trained on", "Mend the file or the keys of data."),
    column_empty=Kind("error", "Columns without values", f"{DROP}."),
    mixed_types=Kind(
        "error",
        "Texts among numbers",
        "Mend the values, leave them empty, or list the column in data.columns.categories.",
    ),
    leaking=Kind("warning", "Columns that give the target away", f"{DROP} if it is only known with the target."),
    target_missing=Kind("warning", "Rows without a target", "They are left out: fill the target in if it is known."),
    identifier=Kind(
        "warning", "Columns that number or name the rows", f"{DROP}: such a value says nothing of new rows."
    ),
    constant=Kind("warning", "Columns with one value", f"{DROP}: they say nothing."),
    row_leak=Kind("warning", "Equal rows in two splits", "Scores may be too good: keep one of them."),
    row_conflict=Kind(
        "warning", "Equal rows with different targets", "No network can get both right: look which is true."
    ),
    duplicate_rows=Kind(
        "warning", "Equal rows within a split", "They count twice: keep one, unless they are two cases."
    ),
    missing_values=Kind("note", "Missing values", "Look whether they are missing for a reason."),
    outliers=Kind("note", "Values far from the others", "Look whether they are mistakes."),
    column=Kind("note", "Columns", "What is read."),
)


def check_table(cfg: DictConfig) -> Source:
    """Check the table of `cfg.data`; a column is called by its name, and the first row after the header is row 1.

    Raises:
        UserError: the file cannot be read, or it has no such target.
    """
    table: Table = call_with_keys(dataset_module(cfg.data).read_whole, cfg.data)
    path = Path(cfg.data.get("root") or cfg.data.name)
    source = Source(path)
    source.items = source.unit = "rows"
    target = read_target(table, cfg.data)
    name = cfg.data.target.column
    if lost := int(is_missing(table.columns[name]).sum()):
        source.add("target_missing", name, f"{lost:,} of {len(table):,} rows have none.")
    features = table.drop(name)
    for column, values in table.columns.items():
        source.add("column", column, f"{'The target. ' if column == name else ''}{describe(values)}")
    for column, values in features.columns.items():
        for fault in (
            *column_faults(values, column in cfg.data.columns.categories),
            *leak_faults(values[target.rows], target.values),
        ):
            source.add(fault[0], column, fault[1])
    owners = check_splits(cfg, source, path.name, len(table))
    check_rows(source, features.take(target.rows), target.values, target.rows.tolist(), owners)
    source.check_balance()
    return source


def check_splits(cfg: DictConfig, source: Source, name: str, rows: int) -> dict[int, str]:
    """Count each split's rows and classes, before any are resampled, and return which split a row belongs to."""
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
        if not any(finding.severity == "error" for finding in source.findings):  # else it is one of these
            source.add("table_unusable", name, str(error))
    return owners


def check_rows(
    source: Source, features: Table, targets: np.ndarray, numbers: list[int], owners: dict[int, str]
) -> None:
    """Report rows that are equal in all columns but the target; `numbers` are theirs in the whole table."""
    matrix = np.stack([to_numbers(column) for column in features.columns.values()], axis=1)
    _, groups, counts = np.unique(matrix, axis=0, return_inverse=True, return_counts=True)
    groups = groups.ravel()
    members: dict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero(counts[groups] > 1).tolist():
        members[int(groups[place])].append(place)
    for places in members.values():
        rows = [numbers[place] for place in places]
        named = [f"{row + 1} ({owners[row]})" if row in owners else f"{row + 1}" for row in rows[:LISTED]]
        sentence = f"{len(rows):,} rows are equal: {', '.join(named)}{', ...' if len(rows) > LISTED else ''}."
        parted = len({owners.get(row) for row in rows}) > 1
        differ = len(np.unique(targets[places])) > 1
        source.add(
            "row_conflict" if differ else "row_leak" if parted else "duplicate_rows", f"row {rows[0] + 1}", sentence
        )
