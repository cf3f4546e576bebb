"""Measure what a training step really takes from Paddle's CPU allocator, to compare with a trace."""

import gc

import paddle
from omegaconf import DictConfig
from paddle.base import core

from src.kit.memory.estimate import DataShape, example_targets
from src.kit.paddle.memory_trace import noise
from src.kit.training import build_loss
from src.kit.training.networks import build_model


def used() -> int:
    return int(core.host_memory_stat_current_value("Allocated", 0))


def real_step(cfg: DictConfig, shape: DataShape, batch: int) -> list[int]:
    """Bytes in use after building the network, after the forward pass and after the backward pass."""
    paddle.set_device("cpu")
    gc.collect()
    start = used()
    network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments)
    network.train()
    loss = build_loss(cfg, shape.class_counts())
    found = [used() - start]
    images = paddle.zeros([batch, shape.channels, shape.image_size, shape.image_size])
    arrays = [paddle.to_tensor(array) for array in example_targets(cfg.task, shape, batch)]
    outputs = network(images, *arrays) if cfg.loss.name == "network" else network(images)
    if shape.objects and cfg.loss.name != "network":
        for value in paddle.utils.flatten(outputs):  # what the trace looks for objects in
            value.get_tensor().set(noise(batch, value.shape[1:]).numpy(), paddle.CPUPlace())
    value = loss(outputs, *arrays)
    del outputs
    found.append(used() - start)
    value.backward()
    del value, images, arrays
    return [*found, used() - start]
