"""Predictions of a trained network in Paddle."""

from pathlib import Path
from typing import Any

import paddle
from src.kit.paddle.callback import to_numpy
from src.kit.paddle.device import Batches
from src.kit.paddle.devices import use_gpu
from src.kit.paddle.networks import weights_from_numpy
from src.kit.training import Collector, Experiment
from src.kit.weights import load_weights


def load_network(experiment: Experiment, checkpoint: Path) -> paddle.nn.Layer:
    """The experiment's network with a checkpoint folder's weights, on the device, in evaluation mode."""
    paddle.set_device("gpu" if use_gpu(experiment.cfg) else "cpu")
    network: paddle.nn.Layer = experiment.build_network(initial=False)
    weights_from_numpy(network, load_weights(checkpoint / "model.safetensors")[0])
    network.eval()
    return network


def predict(experiment: Experiment, network: paddle.nn.Layer, split: str) -> list[Any]:
    """What the task collects from a network's predictions for a split, in float32."""
    collector = Collector(experiment.task, to_numpy)
    with paddle.no_grad():
        for images, *targets in Batches(experiment.build_loader(split)):
            collector.add(network(images), targets)
    return collector.result()[0]


def predict_images(network: paddle.nn.Layer, images: Any) -> Any:
    """Outputs, a NumPy array, for one batch of normalised images float32 (B, C, H, W)."""
    with paddle.no_grad():
        return to_numpy(network(paddle.to_tensor(images)))
