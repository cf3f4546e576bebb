"""Benchmarks of data loading and training, and the timed check of the whole pipeline."""

from src.kit.benchmarks.pipeline import validate_pipeline
from src.kit.benchmarks.training import (
    REPEATS,
    SIDES,
    PillowSamples,
    draw_bars,
    loading_rate,
    measure_in_turns,
    measure_training,
    title,
    training_rate,
)

__all__ = [
    "REPEATS",
    "SIDES",
    "PillowSamples",
    "draw_bars",
    "loading_rate",
    "measure_in_turns",
    "measure_training",
    "title",
    "training_rate",
    "validate_pipeline",
]
