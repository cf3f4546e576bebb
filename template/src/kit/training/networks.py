"""Build the network that the config names, in the framework that the config names."""

import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from omegaconf import DictConfig

from src.kit.config import UserError, resolve
from src.kit.weights import files as weights

log = logging.getLogger("train")  # of the run, which shows and keeps it

MODELS: dict[str, dict[str, str]] = {
    "lightning": {
        "small_cnn": "src.models.lightning.small_cnn:small_cnn",
        "resnet18": "src.models.lightning.resnet:resnet18",
        "resnet34": "src.models.lightning.resnet:resnet34",
        "resnet50": "src.models.lightning.resnet:resnet50",
        "efficientnet_b0": "src.models.lightning.efficientnet:efficientnet_b0",
        "resnet18_attention": "src.models.lightning.resnet_attention:resnet18_attention",
        "yolov10n": "src.models.lightning.detection.yolov10:yolov10n",
        "yolov10s": "src.models.lightning.detection.yolov10:yolov10s",
        "yolov10m": "src.models.lightning.detection.yolov10:yolov10m",
        "yolov10b": "src.models.lightning.detection.yolov10:yolov10b",
        "yolov10l": "src.models.lightning.detection.yolov10:yolov10l",
        "yolov10x": "src.models.lightning.detection.yolov10:yolov10x",
        "deeplab_mobilenet_v2": "src.models.lightning.segmentation.deeplab:deeplab_mobilenet_v2",
        "deeplab_resnet18": "src.models.lightning.segmentation.deeplab:deeplab_resnet18",
        "deeplab_resnet50": "src.models.lightning.segmentation.deeplab:deeplab_resnet50",
        "mask_rcnn_resnet18": "src.models.lightning.instance_segmentation.mask_rcnn:mask_rcnn_resnet18",
        "mask_rcnn_resnet50": "src.models.lightning.instance_segmentation.mask_rcnn:mask_rcnn_resnet50",
        "retinanet_resnet18": "src.models.lightning.detection.retinanet:RetinaNetResNet18",
        "tabular_mlp": "src.models.lightning.tabular.tabular_mlp:tabular_mlp",
    },
    "paddle": {
        "small_cnn": "src.models.paddle.small_cnn:small_cnn",
        "resnet18": "src.models.paddle.resnet:resnet18",
        "resnet34": "src.models.paddle.resnet:resnet34",
        "resnet50": "src.models.paddle.resnet:resnet50",
        "efficientnet_b0": "src.models.paddle.efficientnet:efficientnet_b0",
        "resnet18_attention": "src.models.paddle.resnet_attention:resnet18_attention",
        "yolov10n": "src.models.paddle.detection.yolov10:yolov10n",
        "yolov10s": "src.models.paddle.detection.yolov10:yolov10s",
        "yolov10m": "src.models.paddle.detection.yolov10:yolov10m",
        "yolov10b": "src.models.paddle.detection.yolov10:yolov10b",
        "yolov10l": "src.models.paddle.detection.yolov10:yolov10l",
        "yolov10x": "src.models.paddle.detection.yolov10:yolov10x",
        "deeplab_mobilenet_v2": "src.models.paddle.segmentation.deeplab:deeplab_mobilenet_v2",
        "deeplab_resnet18": "src.models.paddle.segmentation.deeplab:deeplab_resnet18",
        "deeplab_resnet50": "src.models.paddle.segmentation.deeplab:deeplab_resnet50",
        "mask_rcnn_resnet18": "src.models.paddle.instance_segmentation.mask_rcnn:mask_rcnn_resnet18",
        "mask_rcnn_resnet50": "src.models.paddle.instance_segmentation.mask_rcnn:mask_rcnn_resnet50",
        "tabular_mlp": "src.models.paddle.tabular.tabular_mlp:tabular_mlp",
    },
}
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
    build = find_network(cfg.framework, cfg.model.name)
    arguments = {key: value for key, value in cfg.model.items() if key not in GENERAL_KEYS}
    create = partial(build, in_channels=in_channels, image_size=image_size, **extra, **arguments)
    network = create(num_classes=num_classes)
    if cfg.model.pretrained or cfg.model.weights:
        take_weights(cfg, network, create, import_module(f"src.kit.{cfg.framework}.state"))
    return network


def find_network(framework: str, name: str) -> Callable[..., Any]:
    """Return the function that builds a network, from `MODELS`.

    Raises:
        UserError: no such model, or the project's other framework has it.
    """
    models = MODELS[framework]
    others = [other for other in MODELS if name not in models and name in MODELS[other]]
    if others:
        needed = f"framework={others[0]}"
        raise UserError(f"model={name} is there in {needed} only: set {needed}, or choose another model.")
    build: Callable[..., Any] = resolve(models, name, "model")
    return build


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
