"""Label new data with trained networks (`scripts/predict.py`): from files to predictions.csv, pictures and a page."""

from src.kit.predictions.command import predict_command
from src.kit.predictions.results import Results, name_once, rounded, to_rgb
from src.kit.predictions.sources import Source, find_sources

__all__ = ["Results", "Source", "find_sources", "name_once", "predict_command", "rounded", "to_rgb"]
