"""A run in PyTorch: callback, logger, optimizer, weights to and from NumPy, predictions."""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import nn

from src.kit.config import build_component
from src.kit.errors import Stopped
from src.kit.lightning.device import Batches, batch_weight
from src.kit.lightning.inspection import TorchLayers
from src.kit.lightning.ranks import STATE, CheckpointFile, fused, gather, use_gpu
from src.kit.lightning.recipes import Average, build_average, find_zeros, update_statistics
from src.kit.run import Run
from src.kit.training import Collector, Experiment, Schedule, TrainingLoop, frozen_layers, parameter_groups
from src.kit.weights import check_shapes, compressed_shapes, load_weights, save_weights


def weights_to_numpy(network: nn.Module) -> dict[str, np.ndarray]:
    """Copy every parameter and BatchNorm statistic to float32, in the network's order."""
    # BatchNorm's batch counter has no counterpart in Paddle and no effect at a fixed momentum
    return {
        name: tensor.detach().float().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def weights_from_numpy(
    network: nn.Module, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Copy `arrays` into the network, on any device and in any dtype.

    Args:
        metadata: of the file that they come from; if it was compressed, the network takes its channels.

    Raises:
        UserError: a name or a shape differs; nothing is copied then.
    """
    shapes = named_shapes(network)
    if cut := compressed_shapes(arrays, metadata or {}, shapes):
        resize(network, cut)
        shapes = named_shapes(network)
    check_shapes(arrays, shapes)
    own = network.state_dict()
    with torch.no_grad():
        for name in shapes:
            own[name].copy_(torch.tensor(arrays[name]))


def named_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and BatchNorm statistic, by name."""
    state = network.state_dict().items()
    return {name: tuple(tensor.shape) for name, tensor in state if not name.endswith("num_batches_tracked")}


def resize(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Cut parameters and statistics to these shapes, in place, and the layers' sizes with them."""
    for name, shape in shapes.items():
        path, _, kind = name.rpartition(".")
        layer = network.get_submodule(path)
        tensor = getattr(layer, kind)
        tensor.data = tensor.data[tuple(map(slice, shape))].clone()
        if isinstance(layer, nn.BatchNorm2d):
            layer.num_features = shape[0]
        elif kind == "weight" and isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = shape
        elif kind == "weight" and isinstance(layer, nn.Conv2d):
            layer.groups = shape[0] if layer.groups > 1 else 1  # of depthwise convolutions, each channel is a group
            layer.out_channels, layer.in_channels = shape[0], shape[1] * layer.groups


def follow_state(network: nn.Module) -> None:
    """Let a network take the shapes of a smaller state that is loaded into it: that of a compressed run."""

    def hook(module: nn.Module, state: Mapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
        found = {name: state.get(prefix + name) for name in named_shapes(module)}
        resize(module, {name: tuple(tensor.shape) for name, tensor in found.items() if tensor is not None})

    network.register_load_state_dict_pre_hook(hook)


def list_layers(network: nn.Module, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """List the leaf layers in the order in which an input of `shape` (1, C, H, W) passes them.

    Returns:
        A row for each: name, type, output_shape and number of parameters, for `src/kit/report`.
    """
    rows: list[dict[str, Any]] = []

    def add(name: str, layer: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):  # lists of boxes, for example
                return
            count = sum(parameter.numel() for parameter in layer.parameters())
            output_shape = tuple(output.shape)
            rows.append({"name": name, "type": type(layer).__name__, "output_shape": output_shape, "parameters": count})

        return layer.register_forward_hook(hook)

    handles = [add(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(shape, device=next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return rows


def build_optimizer(cfg: DictConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Build `cfg.optimizer` for a network's parameters; clipping is Lightning's.

    The component's `build(parameters, *, fused, ...)` gets groups as PyTorch's optimizers take them.
    """
    trained = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    groups = parameter_groups(cfg.optimizer, trained)
    for group in groups:
        if group["lr_scale"] != 1.0:
            group["lr"] = cfg.optimizer.lr * group["lr_scale"]
    options = {"fused": fused(cfg)}
    optimizer: torch.optim.Optimizer = build_component("optimizer", cfg.optimizer, "lightning", groups, **options)
    return optimizer


class RunCallback(pl.Callback):
    """Sets the learning rate, seeds, logs, evaluates and saves for one training run, in whatever `pl.Trainer`."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        self.experiment, self.run = experiment, run
        self.loop: TrainingLoop
        self.restored: Mapping[str, Any] | None = None
        self.average: Average | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run.path = Path(trainer.strategy.broadcast(str(self.run.path)))  # ranks agree on rank 0's folder
        self.handler = signal.getsignal(signal.SIGTERM)
        self.sharded: Any = trainer.strategy if hasattr(trainer.strategy, "save_state") else None
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not that of your own plugin
            trainer.strategy.checkpoint_io = CheckpointFile(None if self.sharded else pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if callable(self.handler):  # instead of Lightning's, which ends with code 0 and hangs with several processes
            signal.signal(signal.SIGTERM, self.handler)
        loader, batches = trainer.train_dataloader.loader, int(trainer.num_training_batches)
        self.loop = TrainingLoop(self.experiment, self.run, loader, concatenate_losses, batches)
        self.average = build_average(self.experiment.cfg, pl_module.network)
        if self.restored:
            self.loop.load_state_dict(self.restored)
            if self.average:
                self.average.load(self.restored["average"])
            if not self.sharded and (folder := Path(trainer.ckpt_path).parent / STATE).exists():
                from src.kit.lightning.sharding import read_optimizer  # half a second that other runs can spare

                read_optimizer(pl_module.network, trainer.optimizers[0], folder)
        if self.sharded is None:  # a process that looks at a layer alone would wait for the others' parts
            self.loop.inspect(TorchLayers(pl_module.network, self.experiment.cfg.trainer.compile))
        self.masks = find_zeros(pl_module.network)
        if self.loop.resumed:  # Lightning starts no epoch when it continues in the middle of one
            trainer.fit_loop.epoch_loop.batch_progress.current.completed = self.loop.batch - 1  # it has yet to add one
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(self.loop.draw_seed())
        self.loop.start_epoch()
        for layer in frozen_layers(pl_module.network):
            layer.eval()  # keeps its statistics too; Lightning restores it after validation
        trainer.accumulate_grad_batches = self.loop.accumulate

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        lr = self.loop.next_lr()
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.forward = forward_pass(pl_module.network, batch)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        self.loop.check_loss(loss.detach(), self.forward)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.loop.before_update()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for weights, mask in self.masks:
            weights.data *= mask
        if self.average and (rest := self.loop.average_rest()) < 1:
            self.average.update(rest)
        # Lightning has divided the loss by the number of accumulated batches
        scale = self.loop.accumulate / batch_weight(trainer, batch_idx)
        self.loop.step(outputs["loss"] if scale == 1 else outputs["loss"] * scale)
        if self.loop.save_within_epoch(partial(self.save, trainer, pl_module)):
            torch.manual_seed(self.loop.draw_seed())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.average and self.loop.averaged():
            self.average.swap()
            if self.experiment.cfg.trainer.swa is not None:
                batches = trainer.train_dataloader
                batches.loader.set_epoch(self.loop.epoch)
                moved = (trainer.strategy.batch_to_device(batch) for batch in batches)
                update_statistics(pl_module.network, (forward_pass(pl_module.network, batch) for batch in moved))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.average and self.loop.averaged():
            self.average.swap()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.collector = Collector(self.experiment.task, to_numpy, start_copies)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.collector.add(outputs["outputs"], batch[1:], outputs["loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        collected, loss = self.collector.result(partial(gather, world_size=trainer.world_size))
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        stop = self.loop.end_epoch(collected, loss, partial(self.save, trainer, pl_module), logged)
        trainer.should_stop = trainer.should_stop or stop

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Stopped) and hasattr(trainer.strategy.launcher, "kill"):
            at_once = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has the second only, as hard there
            trainer.strategy.launcher.kill(at_once)  # the other ranks, which would wait for this one
            trainer.strategy.launcher.procs.clear()  # or Lightning, which looks every 5 s, would kill this one as well

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, folder: Path) -> None:
        """Write the weights in the neutral format, and Lightning's own checkpoint next to them."""
        if self.sharded:
            metadata = self.experiment.metadata(pl_module.network) if trainer.is_global_zero else None
            self.sharded.save_state(folder, metadata)
        elif trainer.is_global_zero:
            with self.average.applied() if self.average and self.loop.averaged() else nullcontext():
                arrays = weights_to_numpy(pl_module.network)
            save_weights(folder / "model.safetensors", arrays, self.experiment.metadata(pl_module.network))
        trainer.save_checkpoint(folder / "training.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return self.loop.state_dict() | ({"average": self.average.mean} if self.average else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict


def forward_pass(network: nn.Module, batch: Sequence[torch.Tensor]) -> Callable[[], Any]:
    """What passes a batch through the network; networks that compute their own loss also receive the targets."""
    return partial(network, *(batch if getattr(network, "takes_targets", False) else batch[:1]))


class RunLogger(Logger):
    """Sends what `self.log` records within an epoch to the run's tracker; the callback logs whole epochs."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        return self.run.path.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder has the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values and self.run.main:
            self.run.tracker.log(values, int(step or 0))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Fetch a tensor; bfloat16 and float16 become float32."""
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array


def start_copies(tensors: Sequence[torch.Tensor]) -> tuple[Sequence[torch.Tensor], Callable[[], None]]:
    """Begin to copy tensors from a GPU: the copies, and what waits for them but not for what the GPU does next."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]  # pinned memory, if they come from a GPU
    if not tensors[0].is_cuda:
        return copies, lambda: None
    done = torch.cuda.Event()
    done.record()
    return copies, done.synchronize


def concatenate_losses(losses: Sequence[torch.Tensor]) -> list[float]:
    """Fetch scalar tensors at once."""
    values: list[float] = torch.stack(list(losses)).tolist()
    return values


def build_scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, Any]:
    """Optimizer and learning-rate schedule for a plain `pl.Trainer` of `steps` optimizer steps."""
    epochs = max(1, int(cfg.trainer.max_epochs))
    schedule = Schedule(cfg.scheduler, 1.0, max(1, steps // epochs), epochs)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.lr(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def load_network(experiment: Experiment, checkpoint: Path | None) -> torch.nn.Module:
    """The experiment's network with a checkpoint folder's weights, or as training starts it, ready to evaluate."""
    torch.manual_seed(experiment.cfg.seed)
    network: torch.nn.Module = experiment.build_network(initial=checkpoint is None)
    if checkpoint:
        weights_from_numpy(network, *load_weights(checkpoint / "model.safetensors"))
    return network.to(device_of(experiment.cfg)).eval()


def predict(experiment: Experiment, network: torch.nn.Module, split: str) -> list[Any]:
    """What the task collects from a network's predictions for a split, in float32."""
    device = device_of(experiment.cfg)
    collector = Collector(experiment.task, to_numpy, start_copies)
    with torch.inference_mode():
        for images, *targets in Batches(experiment.build_loader(split), device):
            collector.add(network(images.to(device, non_blocking=True)), targets)
    return collector.result()[0]


def predict_images(network: torch.nn.Module, images: Any) -> Any:
    """Outputs, a NumPy array, for one batch of normalised images float32 (B, C, H, W)."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return to_numpy(network(torch.from_numpy(images).to(device)))


def device_of(cfg: DictConfig) -> torch.device:
    """The device that evaluates."""
    return torch.device(f"cuda:{torch.cuda.current_device()}" if use_gpu(cfg) else "cpu")
