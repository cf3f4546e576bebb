"""Compare the trainer's epoch time with a hand-written loop's in the same process, in turns, and their weights.

    python ../benchmarks/overhead.py lightning     # in a project's folder; prints Markdown rows

Both use the same batches and a constant rate, validate after each epoch, and read the loss every 50 steps. The fastest
epoch of each counts: whatever else a machine does only adds time.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import numpy as np

from src.kit.config import load_config
from src.kit.run import Run
from src.kit.training import Experiment, TrainingLoop, find_checkpoint, load_trainer
from src.kit.weights import load_weights

EPOCHS, ROUNDS = 3, 4
SIZES = {  # about 1, 5 and 30 ms a step on 2 cores
    "lightning": (
        ["data.image_size=8", "data.batch_size=32", "trainer.limit_train_batches=200"],
        ["model.width=16", "trainer.limit_train_batches=100"],
        ["model.width=48", "data.batch_size=192", "trainer.limit_train_batches=30"],
    ),
    "paddle": (
        ["data.image_size=8", "data.batch_size=8", "trainer.limit_train_batches=200"],
        ["data.image_size=12", "trainer.limit_train_batches=100"],
        ["data.batch_size=256", "trainer.limit_train_batches=30"],
    ),
}
SHARED = ["scheduler=constant", "tracker=none", f"trainer.max_epochs={EPOCHS}", "model=small_cnn", "data=mnist"]
SHARED += ["trainer.limit_val_batches=10"]


def main(framework: str) -> None:
    """Print a row for each step size."""
    for size in SIZES[framework]:
        cfg = load_config([f"framework={framework}", *SHARED, *size, *sys.argv[2:]])
        loops: list[float] = []
        ours: list[float] = []
        defaults: list[float] = []
        for _ in range(ROUNDS):
            by_hand, expected = LOOPS[framework](cfg)
            epochs, reached = fit(cfg)
            loops += by_hand[1:]  # the first epoch warms up
            ours += epochs[1:]
            if framework == "lightning":
                defaults += fit_with_lightning_defaults(cfg)[1:]
        same = all(np.array_equal(expected[name], reached[name]) for name in expected)
        steps = len(Experiment(cfg).build_loader("train"))
        base = min(loops)
        default = f"{min(defaults) / base:.2f}" if defaults else "-"
        equal = "bit-equal" if same else "DIFFER"
        step = f"{base / steps * 1000:.1f} ms"
        print(f"| {framework} | {step} | {min(ours) / base:.3f} | {default} | {equal} |", flush=True)


def fit(cfg: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    """Seconds of each epoch of our trainer, validation, logging and metrics included, and the final weights."""
    times: list[float] = []
    start, end = TrainingLoop.start_epoch, TrainingLoop.end_epoch

    def timed_start(self: TrainingLoop) -> None:
        start(self)
        times.append(time.perf_counter())

    def timed_end(self: TrainingLoop, *args: Any, **kwargs: Any) -> bool:
        times[-1] = time.perf_counter() - times[-1]
        return end(self, *args, **kwargs)

    with tempfile.TemporaryDirectory() as folder:
        cfg.output_dir = folder
        TrainingLoop.start_epoch, TrainingLoop.end_epoch = timed_start, timed_end  # type: ignore[method-assign]
        with Run(cfg) as run:
            load_trainer(cfg).fit(Experiment(cfg), run)
        TrainingLoop.start_epoch, TrainingLoop.end_epoch = start, end  # type: ignore[method-assign]
        return times, load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]


def loop_in_torch(cfg: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    """The loop that a user would write in PyTorch."""
    import torch

    from src.kit.lightning import weights_to_numpy

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
    times = []
    for epoch in range(EPOCHS):
        torch.manual_seed(cfg.seed + epoch + 1)
        loader.set_epoch(epoch)
        network.train()
        started = time.perf_counter()
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
        times.append(time.perf_counter() - started)
    return times, weights_to_numpy(network)


def loop_in_paddle(cfg: Any) -> tuple[list[float], dict[str, np.ndarray]]:
    """The loop that a user would write in Paddle."""
    import paddle

    from src.kit.paddle import weights_to_numpy

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
    times = []
    for epoch in range(EPOCHS):
        paddle.seed(cfg.seed + epoch + 1)
        loader.set_epoch(epoch)
        network.train()
        started = time.perf_counter()
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
        times.append(time.perf_counter() - started)
    return times, weights_to_numpy(network)


def fit_with_lightning_defaults(cfg: Any) -> list[float]:
    """Seconds of each epoch with Lightning's default trainer: logger, bar, checkpoints, `self.log` every step."""
    import pytorch_lightning as pl
    import torch

    from src.kit.lightning import Batches

    class Plain(pl.LightningModule):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network, self.times, self.loss = network, [], torch.nn.CrossEntropyLoss()

        def on_train_epoch_start(self) -> None:
            self.times.append(time.perf_counter())

        def on_train_epoch_end(self) -> None:
            self.times[-1] = time.perf_counter() - self.times[-1]

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
        pl.Trainer(max_epochs=EPOCHS, default_root_dir=folder, num_sanity_val_steps=0, enable_model_summary=False).fit(
            module, *loaders
        )
    return module.times


LOOPS = {"lightning": loop_in_torch, "paddle": loop_in_paddle}

if __name__ == "__main__":
    main(sys.argv[1])
