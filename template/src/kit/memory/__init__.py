"""GPU memory before training: allocations of two steps, replayed through a model of the framework's allocator."""

from src.kit.memory.check import fallback, fit_memory
from src.kit.memory.estimate import GPUS, Estimator
from src.kit.memory.examples import make_targets
from src.kit.memory.probe import probe
from src.kit.memory.shape import Shape
from src.kit.memory.trace import Recorder, Trace
from src.kit.memory.workspace import convolution

__all__ = [
    "GPUS",
    "Estimator",
    "Recorder",
    "Shape",
    "Trace",
    "convolution",
    "fallback",
    "fit_memory",
    "make_targets",
    "probe",
]
