"""What a recipe adds to plain training in PyTorch: a teacher, the average of weights, compilation."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from src.kit.config import UserError
from src.kit.training import Experiment, Teacher, check_average, frozen_layers, load_teacher
from src.kit.weights import compression_of

log = logging.getLogger("train")  # the run's, which prints and saves it


def distillation_loss(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over the batch of KL(teacher || student), of softmax(logits / T).

    T^2 keeps the gradients' size whatever the temperature (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Args:
        outputs, taught: the student's and the teacher's logits (B, K).
    """
    student, teacher = (F.log_softmax(logits.float() / temperature, dim=1) for logits in (outputs, taught))
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(dim=1).mean()


class Distillation:
    """Adds a teacher to a loss. No `nn.Module`: a module that holds it neither trains nor saves the teacher."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.network = teacher, teacher.network.requires_grad_(False)
        self.scale, self.shift = torch.from_numpy(teacher.scale), torch.from_numpy(teacher.shift)

    def __call__(self, images: Tensor, outputs: Tensor, loss: Tensor) -> Tensor:
        """The loss of a batch with the teacher's part.

        Args:
            images: the student's input, float32 (B, C, H, W); of tables (B, F).
            outputs: the student's logits (B, K).
            loss: of `outputs` and the targets, a scalar.
        """
        with torch.no_grad():
            taught = self.network(self.prepare(images))
        part = distillation_loss(outputs, taught, self.teacher.temperature)
        return (1 - self.teacher.weight) * loss + self.teacher.weight * part

    def prepare(self, images: Tensor) -> Tensor:
        """The student's input as the teacher takes it: in its normalisation and size."""
        if self.scale.device != images.device:
            self.network.to(images.device)
            self.scale, self.shift = self.scale.to(images.device), self.shift.to(images.device)
        if self.teacher.size is None:
            return images
        images = images * self.scale + self.shift
        if images.shape[2:] == self.teacher.size:
            return images
        return F.interpolate(images, self.teacher.size, mode="bilinear", antialias=True)


def build_distillation(experiment: Experiment) -> Distillation | None:
    """The teacher of `trainer.distill`, or None.

    Raises:
        UserError: it cannot teach this student.
    """
    teacher = load_teacher(experiment)
    return Distillation(teacher) if teacher else None


class LowRank(nn.Module):
    """A linear layer that stays as it is, plus a product of two thin matrices that learns its change (LoRA).

    The second one starts at zero, so the network starts as it was (Hu et al. 2021, arXiv 2106.09685, section 4.1).
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def add_lora(network: nn.Module, rank: int, heads: Collection[str]) -> int:
    """Put a `LowRank` around every linear layer but `heads`, and train nothing else; return how many there are."""
    linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear and name not in heads]
    for name in linear:
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, LowRank(network.get_submodule(name), rank))
    trained = {f"{name}.{part}" for name in linear for part in ("down", "up")} | set(heads)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.rpartition(".")[0] in trained
    return len(linear)


class Average:
    """An average of a network's weights and BatchNorm statistics, which evaluates better.

    With `trainer.ema`, averages of statistics are not exactly the statistics of averaged weights, but follow the same
    steps as them and cost no pass over the data (as in timm and torchvision's recipes). `trainer.swa` makes that pass.
    """

    def __init__(self, network: nn.Module) -> None:
        """Start from the network's weights."""
        floats = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        self.own = list({tensor.data_ptr(): tensor for tensor in floats}.values())  # shared weights count once
        self.mean = [tensor.clone() for tensor in self.own]

    def update(self, rest: float) -> None:
        """Take in the weights, in a few kernels for all tensors; `rest` is what remains of the average."""
        get_ema_multi_avg_fn(rest)(self.mean, self.own, 0)

    def load(self, mean: list[Tensor]) -> None:
        """Continue from a checkpoint's average."""
        for tensor, saved in zip(self.mean, mean, strict=True):
            tensor.copy_(saved)

    def swap(self) -> None:
        """Exchange the network's weights and their average."""
        with torch.no_grad():
            for own, mean in zip(self.own, self.mean, strict=True):
                kept = own.clone()
                own.copy_(mean)
                mean.copy_(kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the network has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def update_statistics(network: nn.Module, passes: Iterable[Callable[[], Any]]) -> None:
    """Set BatchNorm's statistics to their means over some batches; frozen ones stay.

    Args:
        passes: a forward pass of each batch.
    """
    frozen = frozen_layers(network)
    norms = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats and layer not in frozen
    ]
    modes, momenta = [layer.training for layer in norms], [layer.momentum for layer in norms]
    try:
        for layer in norms:
            layer.train()  # only these: dropout stays off
        with torch.no_grad():
            for number, forward in enumerate(passes if norms else ()):
                for layer in norms:
                    layer.momentum = 1 / (number + 1)  # of the new value
                forward()
    finally:
        for layer, mode, momentum in zip(norms, modes, momenta, strict=True):
            layer.train(mode)
            layer.momentum = momentum


def build_average(cfg: DictConfig, network: nn.Module) -> Average | None:
    """The average of `trainer.ema` or `trainer.swa`, or None."""
    check_average(cfg.trainer)
    return Average(network) if cfg.trainer.ema or cfg.trainer.swa is not None else None


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """A context in which a forward pass changes copies of the module's buffers, such as BatchNorm's statistics."""
    owners = [layer for layer in module.modules() if layer._buffers]
    kept = [dict(layer._buffers) for layer in owners]
    for layer in owners:
        for name, buffer in layer._buffers.items():
            layer._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for layer, buffers in zip(owners, kept, strict=True):
            layer._buffers.update(buffers)


def recomputed(block: nn.Module) -> Callable[..., Any]:
    """A block's forward pass that keeps its inputs only, and runs again for the gradient (`trainer.*checkpointing`).

    The second pass draws the same random numbers, and leaves BatchNorm's statistics as the first one has set them.
    """
    forward = block.forward

    def run(*inputs: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*inputs, **named)
        contexts = partial(_contexts, block)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

    return run


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first pass and of the second."""
    return nullcontext(), kept_buffers(block)


def compile_network(cfg: DictConfig, network: nn.Module) -> None:
    """Compile the network's forward and backward pass (`trainer.compile`), in place: no weight changes its name.

    Each shape of a batch has kernels of its own, so that a resumed run computes as the first one did; only with many
    shapes (`data.sizes`, `data.rectangular`) they are general.

    Raises:
        UserError: a network whose course depends on values, which would be compiled again and again.
    """
    if getattr(network, "takes_targets", False):
        raise UserError(f"model={cfg.model.name} chooses by values and cannot be compiled: set trainer.compile=false.")
    dynamic = None if cfg.data.get("sizes") or cfg.data.get("rectangular", "none") != "none" else False
    # not `network.compile()`, which leaves an nn.Sequential as it is
    network.forward = torch.compile(network.forward, dynamic=dynamic)  # type: ignore[method-assign]


class Tuned(pl.Callback):
    """Settings of `gpu_settings`, before the network moves to its GPU."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        torch.set_float32_matmul_precision(self.settings["float32_matmul_precision"])
        if self.settings["channels_last"]:
            pl_module.network.to(memory_format=torch.channels_last)  # type: ignore[operator, union-attr, call-overload]
        if trainer.is_global_zero:
            log.info("On the GPU: %s.", ", ".join(f"{name}={value}" for name, value in self.settings.items()))


class Compiled(pl.Callback):
    """Compiles the network of a run, and says how long its first step took."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.started = cfg, 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        compile_network(self.cfg, pl_module.network)  # type: ignore[arg-type]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.started = self.started or time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.started > 0 and trainer.is_global_zero:
            seconds = time.perf_counter() - self.started
            log.info("trainer.compile: the first step, in which the network was compiled, took %.1f s.", seconds)
        self.started = -1.0


def find_zeros(network: nn.Module) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Weights that `scripts/compress.py` has set to zero in part, where they stay, and masks of 0 there, else 1."""
    if not compression_of({"compression": getattr(network, "compression", "")}).get("sparsity"):
        return []
    return [(weights, (weights != 0).to(weights.dtype)) for weights in network.parameters() if weights.ndim > 1]
