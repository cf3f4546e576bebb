"""The run folder: configuration, metrics, checkpoints and provenance of one training."""

from src.kit.run.folder import Run, new_folder
from src.kit.run.progress import REDRAW_S, Progress, open_bar
from src.kit.run.provenance import describe
from src.kit.run.run_files import read_json, read_rows, write_json

__all__ = ["REDRAW_S", "Progress", "Run", "describe", "new_folder", "open_bar", "read_json", "read_rows", "write_json"]
