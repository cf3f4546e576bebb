"""What the kit does in PaddlePaddle."""

from src.kit.paddle.avx2 import use_avx2
from src.kit.paddle.device import Batches, DeviceBatches, build_batches, choose
from src.kit.paddle.devices import count_devices, failure_file, gather, refuse_unsupported, start_ranks, use_gpu
from src.kit.paddle.networks import initialise_like_torch, list_layers, weights_from_numpy, weights_to_numpy
from src.kit.paddle.optimizer import build_optimizer

__all__ = [
    "Batches",
    "DeviceBatches",
    "build_batches",
    "build_optimizer",
    "choose",
    "count_devices",
    "failure_file",
    "gather",
    "initialise_like_torch",
    "list_layers",
    "refuse_unsupported",
    "start_ranks",
    "use_avx2",
    "use_gpu",
    "weights_from_numpy",
    "weights_to_numpy",
]
