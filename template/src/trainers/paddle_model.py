"""Paddle's high-level model with a step that never waits for the loss, and the callback that drives the session."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from omegaconf import DictConfig

from src.kit.loading import Loader
from src.kit.paddle import build_optimizer, gather, weights_from_numpy, weights_to_numpy
from src.kit.training import Collector, Session, build_loss, describe_network, tasks
from src.kit.weights import load_weights, save_weights


class Model(paddle.Model):
    """`paddle.Model` whose `train_batch` keeps the loss on the device: the original fetches it every step."""

    def __init__(self, cfg: DictConfig, network: paddle.nn.Layer, session: Session, train: Any) -> None:
        images = paddle.static.InputSpec([None, None, None, None], "float32", "images")
        super().__init__(network, [images])
        self.cfg, self.session = cfg, session
        self.task, self.loss = tasks.load(cfg.task), build_loss(cfg, train.class_counts())
        self.takes_targets = getattr(network, "takes_targets", False)
        self.parallel = paddle.DataParallel(network) if paddle.distributed.get_world_size() > 1 else network
        self.optimizer = build_optimizer(cfg, network)
        self.scaler = paddle.amp.GradScaler(enable=cfg.trainer.precision == "16-mixed", init_loss_scaling=65536.0)
        self.amp = {"16-mixed": "float16", "bf16-mixed": "bfloat16"}.get(cfg.trainer.precision)
        self.collector = Collector(self.task, to_numpy)
        self.prepare(self.optimizer)

    def train_batch(self, inputs: list[Any], labels: list[Any] | None = None, update: bool = True) -> list[Any]:
        """One forward and backward pass; the session says when gradients become a step, and not `update`."""
        arrays = labels or []
        self.parallel.train()
        with paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            # a network whose losses are its own is given what it shall find
            outputs = self.parallel(inputs[0], *arrays) if self.takes_targets else self.parallel(inputs[0])
        loss = self.loss(outputs, *arrays)
        # a step's gradient is the mean over its batches, as in Lightning
        self.scaler.scale(loss / self.session.accumulate if self.session.accumulate > 1 else loss).backward()
        if self.session.updates():
            self.optimizer.set_lr(self.session.lr)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.clear_grad()
        self.last_loss = loss.detach()
        return []

    def eval_batch(self, inputs: list[Any], labels: list[Any] | None = None) -> list[Any]:
        """Collect the predictions; the metrics come from all of them at once."""
        arrays = labels or []
        self.network.eval()
        with paddle.no_grad(), paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            outputs = self.network(inputs[0])
        with paddle.no_grad():
            loss = self.loss(outputs, *arrays) if self.task.VALIDATION_LOSS else None
        self.collector.add(outputs, arrays, loss)
        return []


class SessionCallback(paddle.callbacks.Callback):
    """Tells the session of every batch and epoch, and writes and reads its checkpoints."""

    def __init__(self, cfg: DictConfig, model: Model, train: Any, loader: Loader) -> None:
        super().__init__()
        self.cfg, self.own, self.train, self.loader = cfg, model, train, loader

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        paddle.seed(self.own.session.draw_seed())
        self.loader.set_epoch(self.own.session.epoch, self.own.session.batch)
        self.own.session.start_epoch()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        self.own.session.next_lr()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        self.own.session.step(self.own.last_loss)
        if self.own.session.save_within_epoch(self.save):
            paddle.seed(self.own.session.draw_seed())

    def on_eval_begin(self, logs: Any = None) -> None:
        self.own.collector = Collector(self.own.task, to_numpy)

    def on_eval_end(self, logs: Any = None) -> None:
        kept, loss = self.own.collector.result(gather)
        classes = self.own.task.classes(self.train)
        self.own.stop_training = self.own.session.end_epoch(kept, classes, loss, self.save)

    def save(self, folder: Path) -> None:
        """Write the weights in the neutral format, and optimizer, scaler and session without any pickle."""
        if paddle.distributed.get_rank() > 0:
            return
        save_weights(
            folder / "model.safetensors", weights_to_numpy(self.own.network), describe_network(self.cfg, self.train)
        )
        tensors = self.own.optimizer.state_dict().items()
        arrays = {name: value.numpy() for name, value in tensors if hasattr(value, "numpy")}
        scaler = json.dumps({name: float(value) for name, value in self.own.scaler.state_dict().items()})
        metadata = {"session": json.dumps(self.own.session.state_dict()), "scaler": scaler}
        save_weights(folder / "training.safetensors", arrays, metadata)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint folder."""
        weights_from_numpy(self.own.network, load_weights(folder / "model.safetensors")[0])
        arrays, metadata = load_weights(folder / "training.safetensors")
        self.own.optimizer.set_state_dict({name: paddle.to_tensor(value) for name, value in arrays.items()})
        if scaler := json.loads(metadata["scaler"]):
            self.own.scaler.load_state_dict({name: np.array([value], "float32") for name, value in scaler.items()})
        self.own.session.load_state_dict(json.loads(metadata["session"]))


def to_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """Fetch a tensor; bfloat16 and float16 become float32."""
    array: np.ndarray = (tensor.astype("float32") if tensor.is_floating_point() else tensor).numpy()
    return array
