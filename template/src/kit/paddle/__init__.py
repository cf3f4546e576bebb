"""What the kit does in PaddlePaddle: devices and processes, batches, the run's callback, weights, predictions."""

from src.kit.hardware import SystemProbe
from src.kit.paddle.avx2 import use_avx2

use_avx2(SystemProbe())  # before Paddle is imported

from src.kit.paddle.callback import RunCallback, to_numpy  # noqa: E402
from src.kit.paddle.device import Batches, DeviceBatches, build_batches, choose_image_cache  # noqa: E402
from src.kit.paddle.devices import open_process, readable_errors, refuse_unsupported, run_on_devices, use_gpu  # noqa: E402
from src.kit.paddle.networks import initialise_like_torch, list_layers, weights_from_numpy, weights_to_numpy  # noqa: E402
from src.kit.paddle.optimizer import build_optimizer  # noqa: E402
from src.kit.paddle.predict import load_network, predict, predict_images  # noqa: E402

__all__ = [
    "Batches",
    "DeviceBatches",
    "RunCallback",
    "build_batches",
    "build_optimizer",
    "choose_image_cache",
    "initialise_like_torch",
    "list_layers",
    "load_network",
    "open_process",
    "predict",
    "predict_images",
    "readable_errors",
    "refuse_unsupported",
    "run_on_devices",
    "to_numpy",
    "use_gpu",
    "weights_from_numpy",
    "weights_to_numpy",
]
