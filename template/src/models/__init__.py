"""Build the network that the config names, in the framework that the config names."""

from importlib import import_module
from typing import Any

from omegaconf import DictConfig

from src.models import weights
from src.utils.errors import UserError
from src.utils.registry import resolve

FRAMEWORKS = {"lightning": "src.models.lightning", "paddle": "src.models.paddle"}
GENERAL_KEYS = ("name", "tasks", "pretrained", "weights")
SMALL_IMAGE = 64
STEMS = ("auto", "small", "imagenet")


def build_model(cfg: DictConfig, num_classes: int, in_channels: int, image_size: int, **extra: Any) -> Any:
    """Return a `torch.nn.Module` or a `paddle.nn.Layer`: float32 (B, C, H, W) -> float32 logits (B, K).

    Every key of `cfg.model` but `GENERAL_KEYS` is an argument of the network, as is `extra`,
    what a task knows of its data set.

    Raises:
        UserError: unknown model, impossible argument, or weights that are missing or belong to another model.
    """
    if cfg.model.pretrained and cfg.model.weights:
        raise UserError(f"model.pretrained=true and model.weights={cfg.model.weights} exclude each other; set one.")
    package = resolve(FRAMEWORKS, cfg.framework, "framework")
    build = resolve(package.MODELS, cfg.model.name, "model")
    arguments = {key: value for key, value in cfg.model.items() if key not in GENERAL_KEYS}
    network = build(num_classes=num_classes, in_channels=in_channels, image_size=image_size, **extra, **arguments)
    if not (cfg.model.pretrained or cfg.model.weights):
        return network
    state = import_module(f"{package.__name__}.state")
    initial = state.to_numpy(network)
    if cfg.model.pretrained:
        arrays = weights.adapt_stem(weights.pretrained(cfg.model.name), initial)
    else:
        arrays, _ = weights.load(cfg.model.weights)
    state.from_numpy(network, weights.keep_head(arrays, initial, cfg.model.name))
    return network


def is_small(stem: str, image_size: int) -> bool:
    """Whether to start with a 3x3 convolution of stride 1 and no pooling.

    ImageNet's stem divides 224 pixels by 4, which would leave next to nothing of a 32-pixel image; He et al. 2015
    (arXiv 1512.03385, section 4.2) begin with a plain 3x3 convolution on CIFAR-10. `auto` does so up to 64 pixels.

    Raises:
        UserError: `stem` is none of auto, small, imagenet.
    """
    if stem not in STEMS:
        raise UserError(f"model.stem is {stem!r}; choose one of {', '.join(STEMS)}.")
    return image_size <= SMALL_IMAGE if stem == "auto" else stem == "small"
