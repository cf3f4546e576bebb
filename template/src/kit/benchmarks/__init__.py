"""Benchmarks of data loading and training, and the timed check of the whole pipeline."""

from src.kit.benchmarks.data import REPEATS, PillowSamples, loading_rate, measure_in_turns, training_rate
from src.kit.benchmarks.pipeline import validate_pipeline
from src.kit.benchmarks.training import measure_training

__all__ = [
    "REPEATS",
    "PillowSamples",
    "loading_rate",
    "measure_in_turns",
    "measure_training",
    "training_rate",
    "validate_pipeline",
]
