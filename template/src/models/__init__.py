"""Build the network that the config names, in the framework that the config names."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from src.models import weights
from src.utils.errors import UserError
from src.utils.registry import resolve

log = logging.getLogger("train")  # of the run, which shows and keeps it

FRAMEWORKS = {"lightning": "src.models.lightning", "paddle": "src.models.paddle"}
GENERAL_KEYS = ("name", "tasks", "pretrained", "weights")
SMALL_IMAGE = 64
STEMS = ("auto", "small", "imagenet")


def build_model(cfg: DictConfig, num_classes: int, in_channels: int, image_size: int, **extra: Any) -> Any:
    """Return a `torch.nn.Module` or a `paddle.nn.Layer`: float32 (B, C, H, W) -> float32 logits (B, K).

    Every key of `cfg.model` but `GENERAL_KEYS` is an argument of the network, as is `extra`,
    what a task knows of its data set.

    Raises:
        UserError: unknown model or one of the other framework, impossible argument, or weights that are missing or
            belong to another model.
    """
    if cfg.model.pretrained and cfg.model.weights:
        raise UserError(f"model.pretrained=true and model.weights={cfg.model.weights} exclude each other; set one.")
    package = resolve(FRAMEWORKS, cfg.framework, "framework")
    build = find_network(package.MODELS, cfg.model.name)
    arguments = {key: value for key, value in cfg.model.items() if key not in GENERAL_KEYS}
    create = partial(build, in_channels=in_channels, image_size=image_size, **extra, **arguments)
    network = create(num_classes=num_classes)
    if cfg.model.pretrained or cfg.model.weights:
        take_weights(cfg, network, create, import_module(f"{package.__name__}.state"))
    return network


def find_network(models: Mapping[str, str], name: str) -> Callable[..., Any]:
    """Return the function that builds a network, from one framework's `MODELS`.

    Raises:
        UserError: no such model, or the project's other framework has it.
    """
    others = [other for other, place in FRAMEWORKS.items() if name not in models and name in models_of(place)]
    if others:
        needed = f"framework={others[0]}"
        raise UserError(f"model={name} is there in {needed} only: set {needed}, or choose another model.")
    build: Callable[..., Any] = resolve(models, name, "model")
    return build


def models_of(package: str) -> Mapping[str, str]:
    """A framework's `MODELS`, which import nothing of it; empty where the project was generated without it."""
    return import_module(package).MODELS if find_spec(package) else {}


def take_weights(cfg: DictConfig, network: Any, create: Callable[..., Any], state: ModuleType) -> None:
    """Start a network from published or an earlier run's weights, which may be made for other classes.

    What depends on the classes is found by building the network for the file's classes too: no list of layers to keep.

    Args:
        create: builds the network for `num_classes`.
        state: the framework's `to_numpy` and `from_numpy`.
    """
    initial = state.to_numpy(network)
    if cfg.model.pretrained:
        arrays = weights.adapt_stem(weights.pretrained(cfg.model.name), initial)
        classes = weights.IMAGENET_CLASSES
    else:
        arrays, metadata = weights.load(cfg.model.weights)
        classes = weights.count_classes(metadata)
    made_for = state.to_numpy(create(num_classes=classes))
    kept = weights.left_out(arrays, initial, {name: array.shape for name, array in made_for.items()})
    state.from_numpy(network, {**arrays, **{name: initial[name] for name in kept}})
    if kept:
        layers = dict.fromkeys(name.rpartition(".")[0] for name in kept)
        said = "These layers of %s start anew, because the weights are for other classes or lack them: %s."
        log.info(said, cfg.model.name, ", ".join(layers))


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
