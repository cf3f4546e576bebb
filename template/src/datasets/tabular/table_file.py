"""A CSV or Parquet file of your own: `data.root` is the file, `data.target.column` the column to predict."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from src.kit.splitting import SplitRule
from src.kit.tabular import Table, TableSplit, load_table, read_fitted, read_table


def build(
    split: SplitRule,
    *,
    root: str = "data/table.csv",
    target: Mapping[str, str],
    columns: Mapping[str, Any],
    select: Mapping[str, Any],
    split_by: Mapping[str, Any] | None = None,
    resample: Literal["none", "smote", "under", "both"] = "none",
    preprocessing: str | None = None,
) -> TableSplit:
    """Rows of the file; `val_fraction` and `test_fraction` are cut from all of them.

    Args:
        root: The file.
        target: `column` to predict, its `kind` (classes or number), and the number's `transform`.
        columns: Columns to `drop`, columns whose numbers are `categories`, the CSV file's `delimiter`, and `decimal`
            mark and order of `dates` where the columns leave them open.
        split_by: The column `group` whose equal values stay together, or `time`, whose newest rows are for testing.
        select: `method` that scores columns, and the number `k` of columns to keep.
        resample: Balance the classes of the training rows: make up rows, drop rows, or both.
        preprocessing: A run's model.safetensors: encode, scale and number the classes as that run does.
    """
    keys: dict[str, Any] = {"root": root, "target": target, "columns": columns, "select": select}
    keys |= {"split_by": split_by, "resample": resample, "preprocessing": preprocessing}
    return load_table(partial(read_whole, root=root, columns=columns, preprocessing=preprocessing), split, keys)


def read_whole(*, root: str, columns: Mapping[str, Any], preprocessing: str | None = None) -> Table:
    """Read the whole file, as `read_table` describes; `preprocessing` tells whether its numbers have decimal commas."""
    fitted = read_fitted(preprocessing)
    commas = fitted and any(form.style == "," for form in fitted.forms.values())
    decimal = "comma" if commas else columns.get("decimal", "auto")
    return read_table(Path(root).expanduser(), columns["delimiter"], columns["drop"], columns["categories"], decimal)
