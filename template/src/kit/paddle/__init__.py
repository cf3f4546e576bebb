"""What the kit does in PaddlePaddle."""

from src.kit.paddle import state
from src.kit.paddle.avx2 import use_avx2
from src.kit.paddle.device import Batches, DeviceBatches, build_batches, choose
from src.kit.paddle.devices import count_devices, failure_file, gather, refuse_unsupported, start_ranks, use_gpu
from src.kit.paddle.initialise import initialise
from src.kit.paddle.layers import list_layers

__all__ = [
    "Batches",
    "DeviceBatches",
    "build_batches",
    "choose",
    "count_devices",
    "failure_file",
    "gather",
    "initialise",
    "list_layers",
    "refuse_unsupported",
    "start_ranks",
    "state",
    "use_avx2",
    "use_gpu",
]
