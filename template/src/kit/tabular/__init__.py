"""Tables (CSV, Parquet or arrays) as data for classification and regression: reading, encoding, splits, batches, plots.

`load_table` does it all for a data set; `keys.yaml` documents the keys of the configuration.
"""

from src.kit.tabular.build import load_table, read_fitted, read_target, recognise_columns
from src.kit.tabular.forms import Form, Recognised, interpret, many_categories, stray_text
from src.kit.tabular.preprocessing import MOST_CATEGORIES, check_hidden, embedding_width
from src.kit.tabular.reading import read_table
from src.kit.tabular.rows import TableSplit, build_table_loader, draw_numbers, draw_rows
from src.kit.tabular.table import Table, is_missing, is_numeric, to_text

__all__ = [
    "MOST_CATEGORIES",
    "Form",
    "Recognised",
    "Table",
    "TableSplit",
    "build_table_loader",
    "check_hidden",
    "draw_numbers",
    "draw_rows",
    "embedding_width",
    "interpret",
    "is_missing",
    "is_numeric",
    "load_table",
    "many_categories",
    "read_fitted",
    "read_table",
    "read_target",
    "recognise_columns",
    "stray_text",
    "to_text",
]
