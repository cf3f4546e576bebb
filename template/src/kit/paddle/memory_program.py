"""A network's forward and backward pass as Paddle's own list of operations; nothing is computed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

import paddle
from src.kit.memory import Shape, make_targets
from src.kit.paddle.memory_values import Program, number_values
from src.kit.training import build_loss, build_model


@contextmanager
def on_cpu() -> Iterator[None]:
    """Whatever is computed is computed there, where a GPU is as well."""
    device = paddle.get_device()
    paddle.set_device("cpu")
    try:
        yield
    finally:
        paddle.set_device(device)


def fresh(cfg: DictConfig) -> DictConfig:
    """The configuration without weights to start from."""
    merged = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    assert isinstance(merged, DictConfig)
    return merged


class Network:
    """The configured network, whose weights are never filled; `outputs` are like those of one image."""

    def __init__(self, cfg: DictConfig, shape: Shape) -> None:
        self.cfg, self.shape = cfg, shape
        self.outputs: Any = None
        with paddle.LazyGuard():
            self.layer = build_model(fresh(cfg), shape.classes, shape.channels, shape.image_size, **shape.arguments)
        self.layer.train()
        stores = [s for sub in self.layer.sublayers(include_self=True) for s in (sub._parameters, sub._buffers)]
        self.places = [(store, key, value) for store in stores for key, value in store.items() if value is not None]

    def program(self, batch: int) -> Program:
        """Its training step with batches of `batch`."""
        paddle.enable_static()
        try:
            with warnings.catch_warnings(), paddle.static.program_guard(paddle.static.Program()):
                warnings.simplefilter("ignore")  # of what static programs lack, and eager ones do not
                return self.build(batch)
        finally:
            paddle.disable_static()

    def build(self, batch: int) -> Program:
        weights: list[Any] = []
        for number, (store, key, value) in enumerate(self.places):
            store[key] = paddle.static.data(f"weight_{number}", value.shape, value.dtype)
            store[key].stop_gradient = value.stop_gradient
            weights.append(store[key])
        size = self.shape.image_size
        images = paddle.static.data("images", [batch, self.shape.channels, size, size], "float32")
        targets = [
            paddle.static.data(f"target_{number}", array.shape, str(array.dtype))
            for number, array in enumerate(make_targets(self.cfg.task, self.shape, batch))
        ]
        outputs = self.layer(images)
        backs = []
        if self.shape.objects:
            ends = paddle.utils.flatten(outputs)
            backs = [paddle.static.data(f"back_{place}", end.shape, end.dtype) for place, end in enumerate(ends)]
            self.outputs = paddle.utils.map_structure(lambda end: np.empty(end.shape[1:]), outputs)
        else:
            ends = [build_loss(self.cfg, self.shape.counts())(outputs, *targets)]
        block = paddle.static.default_main_program().global_block()
        forward = len(block.ops)
        trained = [weight for weight in weights if not weight.stop_gradient]
        gradients = zip(trained, paddle.static.gradients(ends, trained, backs or None), strict=True)
        outward = zip(ends, backs, strict=True) if backs else ()
        return number_values(block.ops, forward, weights, list(gradients), [images, *targets], list(outward))
