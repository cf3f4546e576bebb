"""What the kit does in PyTorch."""

from src.kit.lightning.device import Batches, DeviceBatches, build_batches, choose
from src.kit.lightning.networks import list_layers, weights_from_numpy, weights_to_numpy
from src.kit.lightning.optimizer import build_optimizer

__all__ = [
    "Batches",
    "DeviceBatches",
    "build_batches",
    "build_optimizer",
    "choose",
    "list_layers",
    "weights_from_numpy",
    "weights_to_numpy",
]
