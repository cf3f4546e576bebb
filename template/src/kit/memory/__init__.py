"""GPU memory before training: traces two steps without a GPU and runs them through a model of the allocator."""

from src.kit.memory.allocators import (
    MIB,
    Recorder,
    ScaledTrace,
    SentBuckets,
    Trace,
    fill_buckets,
    simulate_allocator,
)
from src.kit.memory.estimate import (
    GPUS,
    PREFETCHED,
    DataShape,
    Estimator,
    convolution_workspace,
    example_targets,
    find_data_shape,
    keeps_buckets,
    refuse_strategy,
)
from src.kit.memory.fit import TooLarge, default_batch_size, fit_memory, fit_to_machine, fits_gpu

__all__ = [
    "GPUS",
    "MIB",
    "PREFETCHED",
    "DataShape",
    "Estimator",
    "Recorder",
    "ScaledTrace",
    "SentBuckets",
    "TooLarge",
    "Trace",
    "convolution_workspace",
    "default_batch_size",
    "example_targets",
    "fill_buckets",
    "find_data_shape",
    "fit_memory",
    "fit_to_machine",
    "fits_gpu",
    "keeps_buckets",
    "refuse_strategy",
    "simulate_allocator",
]
