"""What the kit does in PyTorch."""

from src.kit.lightning import state
from src.kit.lightning.device import Batches, DeviceBatches, build_batches, choose
from src.kit.lightning.layers import list_layers
from src.kit.lightning.unchanged import Unchanged

__all__ = ["Batches", "DeviceBatches", "Unchanged", "build_batches", "choose", "list_layers", "state"]
