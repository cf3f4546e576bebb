"""`report.html` and its pictures."""

from src.kit.report.fold_report import collect, write_fold_report
from src.kit.report.html import card, duration, fold, section, table, text
from src.kit.report.model_graph import count_parameters, draw_model_graph, model_table
from src.kit.report.pictures import draw_confusion, draw_grid, draw_images, draw_predictions
from src.kit.report.plots import BLUE, FAINT, GREEN, INK, VERMILLION, draw_curves, new_figure, save, shorten
from src.kit.report.write import TEMPLATE, write_report

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "INK",
    "TEMPLATE",
    "VERMILLION",
    "card",
    "collect",
    "count_parameters",
    "draw_confusion",
    "draw_curves",
    "draw_grid",
    "draw_images",
    "draw_model_graph",
    "draw_predictions",
    "duration",
    "fold",
    "model_table",
    "new_figure",
    "save",
    "section",
    "shorten",
    "table",
    "text",
    "write_fold_report",
    "write_report",
]
