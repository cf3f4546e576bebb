"""Tables (CSV, Parquet or arrays) as data for classification and regression: reading, encoding, splits, batches, plots.

`load_table` does it all for a data set; `keys.yaml` documents the keys of the configuration.
"""

from src.kit.tabular.build import TableSplit, build_table_loader, draw_numbers, draw_rows, load_table, read_target
from src.kit.tabular.preprocessing import check_hidden, embedding_width
from src.kit.tabular.table import Table, is_missing, is_numeric, read_table, stray_text, to_text

__all__ = [
    "Table",
    "TableSplit",
    "build_table_loader",
    "check_hidden",
    "draw_numbers",
    "draw_rows",
    "embedding_width",
    "is_missing",
    "is_numeric",
    "load_table",
    "read_table",
    "read_target",
    "stray_text",
    "to_text",
]
