"""What the kit does in PyTorch: batches on the device, the run's callback, the trainer, weights, predictions."""

from src.kit.lightning.deferred import defer_imports
from src.kit.lightning.device import (
    Batches,
    DeviceBatches,
    Profile,
    build_batches,
    choose_image_cache,
    download_state,
    weighted,
)
from src.kit.lightning.ranks import LeanModule, build_trainer, join, readable_errors, use_gpu
from src.kit.lightning.recipes import add_lora, build_distillation, recomputed
from src.kit.lightning.trainer import (
    RunCallback,
    RunLogger,
    build_optimizer,
    build_scheduler,
    follow_state,
    list_layers,
    load_network,
    predict,
    predict_images,
    resize,
    to_numpy,
    weights_from_numpy,
    weights_to_numpy,
)

__all__ = [
    "Batches",
    "DeviceBatches",
    "LeanModule",
    "Profile",
    "RunCallback",
    "RunLogger",
    "add_lora",
    "build_batches",
    "build_distillation",
    "build_optimizer",
    "build_scheduler",
    "build_trainer",
    "choose_image_cache",
    "defer_imports",
    "download_state",
    "follow_state",
    "join",
    "list_layers",
    "load_network",
    "predict",
    "predict_images",
    "readable_errors",
    "recomputed",
    "resize",
    "to_numpy",
    "use_gpu",
    "weighted",
    "weights_from_numpy",
    "weights_to_numpy",
]
