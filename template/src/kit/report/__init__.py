"""`report.html` and its figures: curves, confusion matrix, predictions, the network, cross-validation, advice."""

from src.kit.report.figures import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILLION,
    describe_batch,
    draw_confusion,
    draw_curves,
    draw_grid,
    draw_image_batch,
    draw_images,
    draw_predictions,
    new_figure,
    save,
    shorten,
)
from src.kit.report.html import card, duration, fold, section, table, text
from src.kit.report.model_graph import count_parameters, draw_model_graph, model_table
from src.kit.report.reports import TEMPLATE, collect, write_fold_report, write_report

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
    "describe_batch",
    "draw_confusion",
    "draw_curves",
    "draw_grid",
    "draw_image_batch",
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
