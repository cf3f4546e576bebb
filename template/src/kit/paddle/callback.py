"""How a training run follows `paddle.Model.fit`: a callback that logs, evaluates and saves."""

import json
from pathlib import Path
from typing import Any

import numpy as np

import paddle
from src.kit.loading import BatchLoader
from src.kit.paddle.devices import gather
from src.kit.paddle.networks import weights_from_numpy, weights_to_numpy
from src.kit.training import Experiment, TrainingLoop
from src.kit.weights import load_weights, save_weights


class RunCallback(paddle.callbacks.Callback):
    """Tells the loop of every batch and epoch, and writes and reads its checkpoints."""

    def __init__(self, experiment: Experiment, trained: Any, loop: TrainingLoop, loader: BatchLoader) -> None:
        """`trained` is the `Model` of `src/trainers/paddle.py`, `loader` what its training batches come from."""
        super().__init__()
        self.experiment, self.trained, self.loop, self.loader = experiment, trained, loop, loader

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        paddle.seed(self.loop.draw_seed())
        self.loader.set_epoch(self.loop.epoch, self.loop.batch)
        self.loop.start_epoch()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        self.loop.next_lr()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        self.loop.step(self.trained.last_loss)
        if self.loop.save_within_epoch(self.save):
            paddle.seed(self.loop.draw_seed())

    def on_eval_begin(self, logs: Any = None) -> None:
        self.trained.collector.restart()

    def on_eval_end(self, logs: Any = None) -> None:
        collected, loss = self.trained.collector.result(gather)
        stop = self.loop.end_epoch(collected, loss, self.save, self.trained.logged)
        self.trained.stop_training = self.trained.stop_training or stop

    def save(self, folder: Path) -> None:
        """Write the weights in the neutral format, and optimizer, scaler and loop without any pickle."""
        if paddle.distributed.get_rank() > 0:
            return
        arrays = weights_to_numpy(self.trained.network)
        save_weights(folder / "model.safetensors", arrays, self.experiment.metadata())
        tensors = self.trained.optimizer.state_dict().items()
        arrays = {name: value.numpy() for name, value in tensors if hasattr(value, "numpy")}
        scaler = {name: float(value) for name, value in self.trained.scaler.state_dict().items()}
        metadata = {"loop": json.dumps(self.loop.state_dict()), "scaler": json.dumps(scaler)}
        save_weights(folder / "training.safetensors", arrays, metadata)

    def load_checkpoint(self, folder: Path) -> None:
        """Continue from a checkpoint folder."""
        weights_from_numpy(self.trained.network, load_weights(folder / "model.safetensors")[0])
        arrays, metadata = load_weights(folder / "training.safetensors")
        self.trained.optimizer.set_state_dict({name: paddle.to_tensor(value) for name, value in arrays.items()})
        if scaler := json.loads(metadata["scaler"]):
            self.trained.scaler.load_state_dict({name: np.array([v], "float32") for name, v in scaler.items()})
        self.loop.load_state_dict(json.loads(metadata["loop"]))


def to_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """Fetch a tensor; bfloat16 and float16 become float32."""
    array: np.ndarray = (tensor.astype("float32") if tensor.is_floating_point() else tensor).numpy()
    return array
