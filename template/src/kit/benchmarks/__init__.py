"""Time and memory of training, data loading and the whole pipeline."""

from src.kit.benchmarks.data import REPEATS, Pillow, alternate, loading, training
from src.kit.benchmarks.pipeline_check import main
from src.kit.benchmarks.training import measure

__all__ = ["REPEATS", "Pillow", "alternate", "loading", "main", "measure", "training"]
