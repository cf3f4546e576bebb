"""Paddle's high-level model with a step that never waits for the loss, and the callback that drives the session."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from omegaconf import DictConfig

from src import tasks
from src.datasets.base import Split
from src.datasets.loader import Loader
from src.models import weights
from src.models.paddle import state
from src.trainers.builders import describe_network
from src.trainers.paddle_devices import gather
from src.trainers.session import Session


class Model(paddle.Model):
    """`paddle.Model` whose `train_batch` keeps the loss on the device: the original fetches it every step."""

    def __init__(self, cfg: DictConfig, network: paddle.nn.Layer, session: Session) -> None:
        images = paddle.static.InputSpec([None, None, None, None], "float32", "images")
        super().__init__(network, [images], [paddle.static.InputSpec([None], "int64", "targets")])
        self.cfg, self.session, self.loss = cfg, session, tasks.load_loss(cfg)
        self.parallel = paddle.DataParallel(network) if paddle.distributed.get_world_size() > 1 else network
        self.optimizer = build_optimizer(cfg, network)
        self.scaler = paddle.amp.GradScaler(enable=cfg.trainer.precision == "16-mixed", init_loss_scaling=65536.0)
        self.amp = {"16-mixed": "float16", "bf16-mixed": "bfloat16"}.get(cfg.trainer.precision)
        self.accumulate = int(cfg.trainer.accumulate_grad_batches)
        self.outputs: list[tuple[np.ndarray, np.ndarray]] = []
        self.prepare(self.optimizer)

    def train_batch(self, inputs: list[Any], labels: list[Any] | None = None, update: bool = True) -> list[Any]:
        """One forward and backward pass; `update` is false while gradients are accumulated."""
        assert labels
        self.parallel.train()
        with paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            logits = self.parallel(paddle.to_tensor(inputs[0]))
        loss = self.loss(logits, paddle.to_tensor(labels[0]))
        # a step's gradient is the mean over its batches, as in Lightning
        self.scaler.scale(loss / self.accumulate if self.accumulate > 1 else loss).backward()
        if update:
            self.optimizer.set_lr(self.session.lr)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.clear_grad()
        self.last_loss = loss.detach()
        return []

    def eval_batch(self, inputs: list[Any], labels: list[Any] | None = None) -> list[Any]:
        """Collect the predictions; the metrics come from all of them at once."""
        assert labels
        self.network.eval()
        with paddle.no_grad(), paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            logits = self.network(paddle.to_tensor(inputs[0]))
        self.outputs.append((logits.astype("float32").numpy(), np.asarray(labels[0])))
        return []


class SessionCallback(paddle.callbacks.Callback):
    """Tells the session of every batch and epoch, and writes and reads its checkpoints."""

    def __init__(self, cfg: DictConfig, model: Model, train: Split, loader: Loader) -> None:
        super().__init__()
        self.cfg, self.own, self.train, self.loader = cfg, model, train, loader

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # each epoch draws its own random numbers from the seed: a resumed run needs no generator state
        paddle.seed(self.cfg.seed + self.own.session.epoch + 1)
        self.loader.set_epoch(self.own.session.epoch)
        self.own.session.start_epoch()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        self.own.session.next_lr()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        self.own.session.step(self.own.last_loss, step)

    def on_eval_begin(self, logs: Any = None) -> None:
        self.own.outputs = []

    def on_eval_end(self, logs: Any = None) -> None:
        outputs, targets = (np.concatenate(arrays) for arrays in zip(*gather(self.own.outputs), strict=True))
        loss = self.own.loss(paddle.to_tensor(outputs), paddle.to_tensor(targets)).item()
        self.own.stop_training = self.own.session.end_epoch(outputs, targets, loss, self.save)

    def save(self, folder: Path) -> None:
        """Write the weights in the neutral format, and optimizer, scaler and session without any pickle."""
        if paddle.distributed.get_rank() > 0:
            return
        weights.save(
            folder / "model.safetensors", state.to_numpy(self.own.network), describe_network(self.cfg, self.train)
        )
        tensors = self.own.optimizer.state_dict().items()
        arrays = {name: value.numpy() for name, value in tensors if hasattr(value, "numpy")}
        scaler = json.dumps({name: float(value) for name, value in self.own.scaler.state_dict().items()})
        metadata = {"session": json.dumps(self.own.session.state_dict()), "scaler": scaler}
        weights.save(folder / "training.safetensors", arrays, metadata)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint folder."""
        state.from_numpy(self.own.network, weights.load(folder / "model.safetensors")[0])
        arrays, metadata = weights.load(folder / "training.safetensors")
        self.own.optimizer.set_state_dict({name: paddle.to_tensor(value) for name, value in arrays.items()})
        if scaler := json.loads(metadata["scaler"]):
            self.own.scaler.load_state_dict({name: np.array([value], "float32") for name, value in scaler.items()})
        self.own.session.load_state_dict(json.loads(metadata["session"]))


def build_optimizer(cfg: DictConfig, network: paddle.nn.Layer) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101) or SGD with momentum, with gradient clipping."""
    rule, keys = cfg.optimizer, cfg.trainer
    clip = None
    if keys.gradient_clip_val and keys.gradient_clip_algorithm == "norm":
        clip = paddle.nn.ClipGradByGlobalNorm(keys.gradient_clip_val)
    elif keys.gradient_clip_val:
        clip = paddle.nn.ClipGradByValue(keys.gradient_clip_val)
    common = {
        "learning_rate": rule.lr,
        "parameters": network.parameters(),
        "weight_decay": rule.weight_decay,
        "grad_clip": clip,
    }
    if rule.name == "adamw":
        return paddle.optimizer.AdamW(beta1=rule.betas[0], beta2=rule.betas[1], **common)
    return paddle.optimizer.Momentum(momentum=rule.momentum, use_nesterov=rule.nesterov, **common)
