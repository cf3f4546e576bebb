"""Tables (CSV, Parquet or arrays) as data for classification and regression: reading, encoding, splits, batches, plots.

`load_table` does it all for a data set; `keys.yaml` documents the keys of the configuration. What prediction needs is
imported with NumPy only, the rest when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from src.kit.tabular.forms import Form, Recognised, interpret, many_categories, stray_text
from src.kit.tabular.preprocessing import (
    MOST_CATEGORIES,
    Preprocessing,
    check_hidden,
    embedding_width,
    from_json,
    list_bins,
)
from src.kit.tabular.reading import PARQUET, read_table
from src.kit.tabular.scores import score_probabilities
from src.kit.tabular.table import Table, is_missing, is_numeric, to_text

if TYPE_CHECKING:
    from src.kit.tabular.build import load_table, read_fitted, read_target, recognise_columns
    from src.kit.tabular.rows import TableSplit, build_table_loader, draw_numbers, draw_rows

__all__ = [
    "MOST_CATEGORIES",
    "PARQUET",
    "Form",
    "Preprocessing",
    "Recognised",
    "Table",
    "TableSplit",
    "build_table_loader",
    "check_hidden",
    "draw_numbers",
    "draw_rows",
    "embedding_width",
    "from_json",
    "interpret",
    "is_missing",
    "is_numeric",
    "list_bins",
    "load_table",
    "many_categories",
    "read_fitted",
    "read_table",
    "read_target",
    "recognise_columns",
    "score_probabilities",
    "stray_text",
    "to_text",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("build", "rows"):
            if hasattr(found := import_module(f"src.kit.tabular.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
