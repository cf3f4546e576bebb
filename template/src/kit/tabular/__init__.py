"""Tables: reading, encoding, selection of columns, resampling."""

from src.kit.tabular.build import load_table
from src.kit.tabular.loader import build_table_loader
from src.kit.tabular.pictures import draw_numbers, draw_rows
from src.kit.tabular.read import read_table
from src.kit.tabular.split import TableSplit
from src.kit.tabular.table import Table, is_missing, is_numeric, stray_text, to_text
from src.kit.tabular.target import read_target

__all__ = [
    "Table",
    "TableSplit",
    "build_table_loader",
    "draw_numbers",
    "draw_rows",
    "is_missing",
    "is_numeric",
    "load_table",
    "read_table",
    "read_target",
    "stray_text",
    "to_text",
]
