"""What the kit does in PaddlePaddle: devices and processes, batches, the run's callback, weights, predictions."""

import os

os.environ.setdefault("GLOG_minloglevel", "2")  # before Paddle loads: silences its warnings of static programs

from src.kit.hardware import SystemProbe
from src.kit.paddle.devices import (
    Batches,
    DeviceBatches,
    autocast,
    build_batches,
    choose_image_cache,
    join,
    keep_signal_handlers,
    open_process,
    readable_errors,
    refuse_unsupported,
    run_on_devices,
    use_avx2,
    use_gpu,
)
from src.kit.paddle.optimizers import StepOptimizer, build_optimizer, is_decayed
from src.kit.paddle.recipes import add_lora, build_distillation, recomputed
from src.kit.paddle.sharding import backward, connect_ranks
from src.kit.paddle.trainer import (
    Profile,
    RunCallback,
    initialise_like_torch,
    list_layers,
    load_batches,
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
    "Profile",
    "RunCallback",
    "StepOptimizer",
    "add_lora",
    "autocast",
    "backward",
    "build_batches",
    "build_distillation",
    "build_optimizer",
    "choose_image_cache",
    "connect_ranks",
    "initialise_like_torch",
    "is_decayed",
    "join",
    "list_layers",
    "load_batches",
    "load_network",
    "open_process",
    "predict",
    "predict_images",
    "readable_errors",
    "recomputed",
    "refuse_unsupported",
    "resize",
    "run_on_devices",
    "to_numpy",
    "use_gpu",
    "weights_from_numpy",
    "weights_to_numpy",
]

use_avx2(SystemProbe())  # whatever computes with Paddle imports this package first
keep_signal_handlers()
