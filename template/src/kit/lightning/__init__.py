"""What the kit does in PyTorch: batches on the device, the run's callback, the trainer, weights, predictions."""

from src.kit.lightning.callback import RunCallback, RunLogger, to_numpy
from src.kit.lightning.device import Batches, DeviceBatches, build_batches, choose_image_cache
from src.kit.lightning.networks import list_layers, weights_from_numpy, weights_to_numpy
from src.kit.lightning.optimizer import build_optimizer
from src.kit.lightning.trainer import (
    build_scheduler,
    build_trainer,
    load_network,
    predict,
    predict_images,
    readable_errors,
    use_gpu,
)

__all__ = [
    "Batches",
    "DeviceBatches",
    "RunCallback",
    "RunLogger",
    "build_batches",
    "build_optimizer",
    "build_scheduler",
    "build_trainer",
    "choose_image_cache",
    "list_layers",
    "load_network",
    "predict",
    "predict_images",
    "readable_errors",
    "to_numpy",
    "use_gpu",
    "weights_from_numpy",
    "weights_to_numpy",
]
