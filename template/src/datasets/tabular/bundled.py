"""Tables with classes that come with scikit-learn, so nothing is downloaded.

breast_cancer: 569 tumours of 2 classes with 30 measurements; Wolberg et al., 1993, https://archive.ics.uci.edu/dataset/17
wine: 178 wines of 3 growers with 13 measurements; Aeberhard and Forina, 1992, https://archive.ics.uci.edu/dataset/109
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from src.kit.splitting import SplitRule
from src.kit.tabular import Table, TableSplit, load_table


def build(
    split: SplitRule,
    *,
    name: Literal["breast_cancer", "wine"],
    target: Mapping[str, str],
    columns: Mapping[str, Any],
    select: Mapping[str, Any],
    resample: Literal["none", "smote", "under", "both"] = "none",
    preprocessing: str | None = None,
) -> TableSplit:
    """Rows of the table; `val_fraction` and `test_fraction` are cut from all of them.

    Args:
        name: The table.
        target: `column` is the name that the class gets; `kind` is classes.
        columns: Columns whose numbers are `categories`.
        select: `method` that scores columns, and the number `k` of columns to keep.
        resample: Balance the classes of the training rows: make up rows, drop rows, or both.
        preprocessing: A run's model.safetensors: encode, scale and number the classes as that run does.
    """
    keys: dict[str, Any] = {"name": name, "target": target, "columns": columns, "select": select}
    keys |= {"resample": resample, "preprocessing": preprocessing}
    return load_table(partial(read_whole, name=name, target=target), split, keys)


def read_whole(*, name: str, target: Mapping[str, str]) -> Table:
    """The measurements, and the class in the column `target["column"]`."""
    from sklearn.datasets import load_breast_cancer, load_wine

    bunch = {"breast_cancer": load_breast_cancer, "wine": load_wine}[name]()
    columns = dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True))
    classes = np.array([str(label) for label in bunch.target_names], object)
    return Table({**columns, target["column"]: classes[bunch.target]})
