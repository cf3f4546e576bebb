"""What a recipe adds to plain training in Paddle: a teacher, and the average of weights."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from omegaconf import DictConfig

import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.utils import recompute
from paddle.nn import functional as F
from src.kit.training import Experiment, Teacher, check_average, frozen_layers, load_teacher
from src.kit.weights import compression_of


def distillation_loss(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over the batch of KL(teacher || student), of softmax(logits / T).

    T^2 keeps the gradients' size whatever the temperature (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Args:
        outputs, taught: the student's and the teacher's logits (B, K).
    """
    student, teacher = (F.log_softmax(each.astype("float32") / temperature, axis=1) for each in (outputs, taught))
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(axis=1).mean()


class Distillation:
    """Adds a teacher to a loss; the teacher is neither trained nor saved."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.network = teacher, teacher.network
        self.scale, self.shift = paddle.to_tensor(teacher.scale), paddle.to_tensor(teacher.shift)

    def __call__(self, images: Tensor, outputs: Tensor, loss: Tensor) -> Tensor:
        """The loss of a batch with the teacher's part.

        Args:
            images: the student's input, float32 (B, C, H, W); of tables (B, F).
            outputs: the student's logits (B, K).
            loss: of `outputs` and the targets, a scalar.
        """
        with paddle.no_grad():
            taught = self.network(self.prepare(images))
        part = distillation_loss(outputs, taught, self.teacher.temperature)
        return (1 - self.teacher.weight) * loss + self.teacher.weight * part

    def prepare(self, images: Tensor) -> Tensor:
        """The student's input as the teacher takes it: in its normalisation and size."""
        if self.teacher.size is None:
            return images
        images = images * self.scale + self.shift
        if tuple(images.shape[2:]) == self.teacher.size:
            return images
        return F.interpolate(images, list(self.teacher.size), mode="bilinear", antialias=True)


def build_distillation(experiment: Experiment) -> Distillation | None:
    """The teacher of `trainer.distill`, or None.

    Raises:
        UserError: it cannot teach this student.
    """
    teacher = load_teacher(experiment)
    return Distillation(teacher) if teacher else None


class LowRank(nn.Layer):
    """A linear layer that stays as it is, plus a product of two thin matrices that learns its change (LoRA).

    The second one starts at zero, so the network starts as it was (Hu et al. 2021, arXiv 2106.09685, section 4.1).
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        inputs, outputs = base.weight.shape
        self.base = base
        bound = inputs**-0.5  # PyTorch's
        self.down = nn.Linear(inputs, rank, nn.initializer.Uniform(-bound, bound), bias_attr=False)
        self.up = nn.Linear(rank, outputs, nn.initializer.Constant(0.0), bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.base(x) + self.up(self.down(x))


def add_lora(network: nn.Layer, rank: int, heads: Collection[str]) -> int:
    """Put a `LowRank` around every linear layer but `heads`, and train nothing else; return how many there are."""
    layers = dict(network.named_sublayers(include_self=True))
    linear = [name for name, layer in layers.items() if type(layer) is nn.Linear and name not in heads]
    for name in linear:
        parent, _, last = name.rpartition(".")
        setattr(layers[parent], last, LowRank(layers[name], rank))
    trained = {f"{name}.{part}" for name in linear for part in ("down", "up")} | set(heads)
    for name, parameter in network.named_parameters():
        parameter.stop_gradient = name.rpartition(".")[0] not in trained
    return len(linear)


class Average:
    """An average of a network's weights and BatchNorm statistics, which evaluates better.

    With `trainer.ema`, averages of statistics are not exactly the statistics of averaged weights, but follow the same
    steps as them and cost no pass over the data (as in timm and torchvision's recipes). `trainer.swa` makes that pass.
    """

    def __init__(self, network: nn.Layer) -> None:
        """Start from the network's weights."""
        floats = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        self.own = list({id(tensor): tensor for tensor in floats}.values())  # shared weights count once
        self.mean = [tensor.detach().clone() for tensor in self.own]

    def update(self, rest: float) -> None:
        """Take in the weights; `rest` is what remains of the average."""
        with paddle.no_grad():
            for mean, own in zip(self.mean, self.own, strict=True):
                mean.scale_(rest).add_(own.scale(1 - rest))  # a third of `lerp_`'s time on a CPU

    def swap(self) -> None:
        """Exchange the network's weights and their average."""
        with paddle.no_grad():
            for own, mean in zip(self.own, self.mean, strict=True):
                kept = own.clone()
                paddle.assign(mean, own)
                paddle.assign(kept, mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the network has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def update_statistics(network: nn.Layer, passes: Iterable[Callable[[], Any]]) -> None:
    """Set BatchNorm's statistics to their means over some batches; frozen ones stay.

    Args:
        passes: a forward pass of each batch.
    """
    frozen = frozen_layers(network)
    every = network.sublayers(include_self=True)
    norms = [layer for layer in every if hasattr(layer, "_momentum") and hasattr(layer, "_variance")]
    norms = [layer for layer in norms if all(layer is not other for other in frozen)]
    modes, momenta = [layer.training for layer in norms], [layer._momentum for layer in norms]
    try:
        for layer in norms:
            layer.train()  # only these: dropout stays off
        with paddle.no_grad():
            for number, forward in enumerate(passes if norms else ()):
                for layer in norms:
                    layer._momentum = number / (number + 1)  # of the old value
                forward()
    finally:
        for layer, mode, momentum in zip(norms, modes, momenta, strict=True):
            layer.training = mode
            layer._momentum = momentum


def build_average(cfg: DictConfig, network: nn.Layer) -> Average | None:
    """The average of `trainer.ema` or `trainer.swa`, or None."""
    check_average(cfg.trainer)
    return Average(network) if cfg.trainer.ema or cfg.trainer.swa is not None else None


def recomputed(block: nn.Layer) -> Callable[..., Any]:
    """A block's forward pass that keeps its inputs only, and runs again for the gradient (`trainer.*checkpointing`).

    The second pass draws the same random numbers, and leaves BatchNorm's statistics as the first one has set them.
    """
    forward = block.forward
    norms = [layer for layer in block.sublayers() if hasattr(layer, "_momentum") and hasattr(layer, "_variance")]

    def run(*inputs: Any, **named: Any) -> Any:
        if not (block.training and paddle.is_grad_enabled()):
            return forward(*inputs, **named)
        passes = count()

        def once_more(*inputs: Any, **named: Any) -> Any:
            if next(passes) == 0:
                return forward(*inputs, **named)
            momenta = [layer._momentum for layer in norms]
            for layer in norms:
                layer._momentum = 1.0  # what remains of the old statistics
            try:
                return forward(*inputs, **named)
            finally:
                for layer, momentum in zip(norms, momenta, strict=True):
                    layer._momentum = momentum

        return recompute(once_more, *inputs, use_reentrant=False, **named)

    return run


def find_zeros(network: nn.Layer) -> list[tuple[paddle.Tensor, paddle.Tensor]]:
    """Weights that `scripts/compress.py` has set to zero in part, where they stay, and masks of 0 there, else 1."""
    if not compression_of({"compression": getattr(network, "compression", "")}).get("sparsity"):
        return []
    own = [weights for weights in network.parameters() if weights.ndim > 1 and weights._is_initialized()]
    return [(weights, (weights != 0).astype(weights.dtype)) for weights in own]
