"""Compare the CPU time of the trainer's epochs with a hand-written loop's, in turns in one process, and their weights.

    python ../benchmarks/overhead.py lightning     # in a project's folder; prints Markdown rows

Both use the same batches and a constant rate, validate after each epoch, and read the loss every 50 steps. An epoch by
hand follows each of the trainer's, so that whatever else the machine does slows both: the ratio is the median of the
pairs', with its quartiles. One thread.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))
os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other take CPU time

import numpy as np

from src.kit.config import load_config
from src.kit.run import Run
from src.kit.training import Experiment, TrainingLoop, find_checkpoint, load_trainer
from src.kit.weights import load_weights

PAIRS = 40
SIZES = {  # about 1, 5 and 30 ms a step on 2 cores; steps of an epoch
    "lightning": (
        (100, ["data.image_size=8", "data.batch_size=32"]),
        (20, ["model.width=16"]),
        (4, ["model.width=48", "data.batch_size=192"]),
    ),
    "paddle": (
        (100, ["data.image_size=8", "data.batch_size=8"]),
        (20, ["data.image_size=12"]),
        (8, ["data.batch_size=256"]),
    ),
}
SHARED = ["scheduler=constant", "tracker=none", f"trainer.max_epochs={PAIRS + 1}", "model=small_cnn", "data=mnist"]


class Turns:
    """Times epochs of a trainer, each with one of the hand-written loop after it."""

    def __init__(self, loop: Iterator[Any]) -> None:
        self.loop = loop
        self.pairs: list[tuple[float, float]] = []  # CPU seconds of the trainer's and of the loop's

    def start(self) -> None:
        """An epoch of the trainer begins."""
        self.started = time.process_time()

    def end(self) -> None:
        """It has ended."""
        ended = time.process_time()
        self.network = next(self.loop)
        self.pairs.append((ended - self.started, time.process_time() - ended))

    def ratio(self) -> str:
        """Median and quartiles of the ratios; the first epoch warms up."""
        low, middle, high = statistics.quantiles([ours / by_hand for ours, by_hand in self.pairs[1:]], n=4)
        return f"{middle:.3f} ({low:.2f} to {high:.2f})"


def main(framework: str) -> None:
    """Print a row for each step size."""
    for steps, size in SIZES[framework]:
        limits = [f"trainer.limit_train_batches={steps}", f"trainer.limit_val_batches={max(1, steps // 20)}"]
        cfg = load_config([f"framework={framework}", *SHARED, *limits, *size, *sys.argv[2:]])
        turns = Turns(LOOPS[framework](cfg))
        reached = fit(cfg, turns)
        expected = import_module(f"src.kit.{framework}").weights_to_numpy(turns.network)
        equal = "bit-equal" if all(np.array_equal(expected[name], reached[name]) for name in expected) else "DIFFER"
        defaults = "-"
        if framework == "lightning":
            fit_with_lightning_defaults(cfg, plain := Turns(loop_in_torch(cfg)))
            defaults = plain.ratio()
        step = statistics.median(by_hand for _, by_hand in turns.pairs[1:]) / steps * 1000
        print(f"| {framework} | {step:.1f} ms | {turns.ratio()} | {defaults} | {equal} |", flush=True)


def fit(cfg: Any, turns: Turns) -> dict[str, np.ndarray]:
    """Train with our trainer, validation, logging and metrics included; returns the final weights."""
    start, end = TrainingLoop.start_epoch, TrainingLoop.end_epoch

    def timed_start(self: TrainingLoop) -> None:
        start(self)
        turns.start()

    def timed_end(self: TrainingLoop, *args: Any, **kwargs: Any) -> bool:
        turns.end()
        return end(self, *args, **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        cfg.output_dir = folder
        TrainingLoop.start_epoch, TrainingLoop.end_epoch = timed_start, timed_end  # type: ignore[method-assign]
        with Run(cfg) as run:
            load_trainer(cfg).fit(Experiment(cfg), run)
        TrainingLoop.start_epoch, TrainingLoop.end_epoch = start, end  # type: ignore[method-assign]
        return load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]


def loop_in_torch(cfg: Any) -> Iterator[Any]:
    """The loop that a user would write in PyTorch; gives its network after each epoch."""
    import torch

    experiment = Experiment(cfg)
    experiment.split("train")
    torch.manual_seed(cfg.seed)
    network = experiment.build_network()
    loss_function = torch.nn.CrossEntropyLoss()
    rule = cfg.optimizer
    matrices = [each for each in network.parameters() if each.ndim > 1]
    vectors = [each for each in network.parameters() if each.ndim < 2]  # biases and normalisation do not decay
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=rule.lr, betas=tuple(rule.betas), weight_decay=rule.weight_decay, fused=True
    )
    loader, val_loader = experiment.build_loader("train"), experiment.build_loader("val")
    for epoch in range(PAIRS + 1):
        torch.manual_seed(cfg.seed + epoch + 1)
        loader.set_epoch(epoch)
        network.train()
        for number, (images, targets) in enumerate(loader):
            optimizer.zero_grad()
            loss = loss_function(network(torch.from_numpy(images)), torch.from_numpy(targets))
            loss.backward()
            optimizer.step()
            if number % 50 == 49:
                assert np.isfinite(loss.item())
        network.eval()
        with torch.no_grad():
            parts = [(network(torch.from_numpy(images)), torch.from_numpy(targets)) for images, targets in val_loader]
            loss_function(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])).item()
        yield network


def loop_in_paddle(cfg: Any) -> Iterator[Any]:
    """The loop that a user would write in Paddle; gives its network after each epoch."""
    import paddle

    experiment = Experiment(cfg)
    experiment.split("train")
    paddle.seed(cfg.seed)
    network = experiment.build_network()
    loss_function = paddle.nn.CrossEntropyLoss()
    rule = cfg.optimizer
    matrices = {each.name for each in network.parameters() if each.ndim > 1}  # biases and normalisation do not decay
    optimizer = paddle.optimizer.AdamW(
        rule.lr,
        parameters=network.parameters(),
        beta1=rule.betas[0],
        beta2=rule.betas[1],
        weight_decay=rule.weight_decay,
        apply_decay_param_fun=matrices.__contains__,
    )
    loader, val_loader = experiment.build_loader("train"), experiment.build_loader("val")
    for epoch in range(PAIRS + 1):
        paddle.seed(cfg.seed + epoch + 1)
        loader.set_epoch(epoch)
        network.train()
        for number, (images, targets) in enumerate(loader):
            loss = loss_function(network(paddle.to_tensor(images)), paddle.to_tensor(targets))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            if number % 50 == 49:
                assert np.isfinite(loss.item())
        network.eval()
        with paddle.no_grad():
            parts = [(network(paddle.to_tensor(images)), paddle.to_tensor(targets)) for images, targets in val_loader]
            loss_function(paddle.concat([part[0] for part in parts]), paddle.concat([part[1] for part in parts])).item()
        yield network


def fit_with_lightning_defaults(cfg: Any, turns: Turns) -> None:
    """Train with Lightning's default trainer: logger, bar, checkpoints, `self.log` every step."""
    import pytorch_lightning as pl
    import torch

    from src.kit.lightning import Batches

    class Plain(pl.LightningModule):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.loss = network, torch.nn.CrossEntropyLoss()

        def on_train_epoch_start(self) -> None:
            turns.start()

        def on_train_epoch_end(self) -> None:
            turns.end()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = self.loss(self.network(batch[0]), batch[1])
            self.log("train/loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val/loss", self.loss(self.network(batch[0]), batch[1]), prog_bar=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=cfg.optimizer.lr)

    experiment = Experiment(cfg)
    module = Plain(experiment.build_network())
    loaders = [Batches(experiment.build_loader(kind), torch.device("cpu")) for kind in ("train", "val")]
    with tempfile.TemporaryDirectory() as folder:
        pl.Trainer(
            max_epochs=PAIRS + 1, default_root_dir=folder, num_sanity_val_steps=0, enable_model_summary=False
        ).fit(module, *loaders)


LOOPS = {"lightning": loop_in_torch, "paddle": loop_in_paddle}

if __name__ == "__main__":
    main(sys.argv[1])
