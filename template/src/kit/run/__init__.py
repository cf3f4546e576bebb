"""The run folder: configuration, metrics, log and provenance of one training, and the progress bar."""

from src.kit.run.folder import Run, describe_run, new_folder, read_json, read_rows, write_json
from src.kit.run.progress import REDRAW_S, Progress, open_bar

__all__ = [
    "REDRAW_S",
    "Progress",
    "Run",
    "describe_run",
    "new_folder",
    "open_bar",
    "read_json",
    "read_rows",
    "write_json",
]
