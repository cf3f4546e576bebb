"""Build the network and the loss that the configuration names, and start the network from weights.

A network is a file in `src/models/<framework>/` with `build(*, classes, channels, image_size, ...)`. A constant
`PRETRAINED` in it maps names of models to the Hugging Face repositories of their ImageNet-1k weights, and `LICENCE` is
theirs. `BACKBONE` is the start of the names of the layers that a classifier's weights fit. A `build` that has an
argument `pretrained` fetches its weights itself, and `source(name)` beside it returns their repository and licence. A
loss is a file in `src/tasks/losses/<framework>/` with `build(class_counts, *, ...)`.
"""

import ast
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import (
    UserError,
    build_component,
    buildable,
    find_component,
    load_component,
    signature,
    unknown,
)
from src.kit.weights import (
    IMAGENET_CLASSES,
    adapt_positions,
    adapt_stem,
    backbone_names,
    compressed_shapes,
    count_classes,
    download_weights,
    fit_backbone,
    load_metadata,
    load_weights,
    missing_weights,
    rename_timm,
)

log = logging.getLogger("train")  # the run's, which prints and saves it

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Muon's authors' coefficients: five steps bring singular values to 0.7..1.2
STEMS = {  # largest image in pixels, and by how much it is shrunk
    "scaled": ((32, 1), (64, 2), (math.inf, 4)),
    "small": ((math.inf, 1),),
    "half": ((math.inf, 2),),
    "imagenet": ((math.inf, 4),),
    "auto": ((64, 1), (math.inf, 4)),  # the rule of earlier runs, so that their weights stay what they were
}


def build_model(cfg: DictConfig, classes: int, channels: int, image_size: int, **extra: Any) -> Any:
    """Return a `torch.nn.Module` or a `paddle.nn.Layer`: float32 (B, C, H, W) -> float32 logits (B, K).

    Args:
        cfg: `cfg.framework` and `cfg.model`, whose own keys are arguments of the network.
        extra: further arguments of the network, which the task knows from its data.

    Raises:
        UserError: unknown model or one of the other framework, impossible argument, or weights that are missing or
            belong to another model.
    """
    pretrained, file = cfg.model.get("pretrained"), cfg.model.get("weights")
    if pretrained and file:
        raise UserError(f"model.pretrained=true and model.weights={file} exclude each other; set one.")
    given = {"channels": channels, "image_size": image_size, **extra}
    network = build_component("model", cfg.model, cfg.framework, classes=classes, **given)
    plain = OmegaConf.merge(cfg.model, {"pretrained": False})
    if "class_names" in plain:
        plain.class_names = None  # they are as many as the classes of this network only
    create = partial(build_component, "model", plain, cfg.framework, **given)
    if file or (pretrained and not starts_itself(cfg)):
        load_initial_weights(cfg, network, create)
    if cfg.model.get("lora"):
        add_adapters(cfg, network, create(classes=classes + 1))
    freeze(network, cfg.model.get("freeze"))
    return network


def load_initial_weights(cfg: DictConfig, network: Any, create: Callable[..., Any]) -> None:
    """Start a network from published weights or an earlier run's, which may have been trained for other classes.

    Building the network for the file's classes too shows which weights depend on the classes.

    Args:
        create: builds the network for `classes`, from nothing.
    """
    framework = import_module(f"src.kit.{cfg.framework}")
    initial, metadata = framework.weights_to_numpy(network), dict[str, str]()
    if cfg.model.get("pretrained"):
        repository, licence = find_pretrained(cfg)
        announce_weights(repository, licence)
        arrays, classes = load_weights(download_weights(repository))[0], IMAGENET_CLASSES
    else:
        arrays, metadata = load_weights(cfg.model.weights)
        arrays = merge_adapters(arrays)
        classes = count_classes(metadata)
    backbone = str(constants(cfg).get("BACKBONE", ""))
    arrays = adapt_positions(rename_timm(arrays, initial), initial)
    starts_backbone = bool(backbone and not set(arrays) & set(initial) and backbone_names(arrays, initial, backbone))
    if starts_backbone:
        arrays = fit_backbone(arrays, initial, backbone)
    if starts_backbone or cfg.model.get("pretrained"):
        arrays = adapt_stem(arrays, initial)
    made_for = initial if starts_backbone else framework.weights_to_numpy(create(classes=classes))
    shapes = {name: array.shape for name, array in made_for.items()}
    if "compression" in metadata:
        if cfg.model.get("lora"):
            raise UserError(f"{cfg.model.weights} was compressed, which model.lora cannot adapt: leave model.lora out.")
        own = {name: array.shape for name, array in initial.items()}
        framework.resize(network, compressed_shapes(arrays, metadata, shapes, own))
        initial = framework.weights_to_numpy(network)
        network.compression = metadata["compression"]  # for its checkpoints
    missing = missing_weights(arrays, initial, shapes)
    framework.weights_from_numpy(network, {**arrays, **{name: initial[name] for name in missing}})
    if starts_backbone:
        log.info("Only the backbone of %s starts from these weights; its other layers are new.", cfg.model.name)
    elif missing:
        layers = dict.fromkeys(name.rpartition(".")[0] for name in missing)
        message = (
            "These layers of %s start from random values, because the weights are for other classes or lack them: %s."
        )
        log.info(message, cfg.model.name, ", ".join(layers))


def model_file(cfg: DictConfig) -> str:
    """The name of the network's file."""
    return str(cfg.model.get("file") or cfg.model.name)


def starts_itself(cfg: DictConfig) -> bool:
    """Whether the network's `build` fetches published weights itself."""
    path = find_component("model", model_file(cfg), cfg.framework)
    return path is not None and "pretrained" in signature(path)


def constants(cfg: DictConfig, name: str = "") -> dict[str, Any]:
    """`PRETRAINED`, `LICENCE` and `BACKBONE` in a network's file, by default in `cfg`'s; the file is only read."""
    path = find_component("model", name or model_file(cfg), cfg.framework)
    return {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in (ast.parse(path.read_text("utf-8")).body if path else ())
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("PRETRAINED", "LICENCE", "BACKBONE")
    }


def announce_weights(repository: str, licence: str) -> None:
    """Log where the first weights come from, and warn where their licence forbids commercial use."""
    log.info("The network starts from the weights of %s, licence: %s.", repository, licence)
    if "-nc" in licence.lower():
        log.warning("The licence %s of %s forbids commercial use, of what you train too.", licence, repository)


def find_pretrained(cfg: DictConfig) -> tuple[str, str]:
    """Return the Hugging Face repository of a model's published weights, and their licence.

    Raises:
        UserError: there are none for this model.
    """
    if starts_itself(cfg):
        name = cfg.model.get("encoder") or cfg.model.name
        own: tuple[str, str] = load_component("model", model_file(cfg), cfg.framework).source(name)
        return own
    known: dict[str, tuple[str, str]] = {}
    for name in buildable("model", cfg.framework):
        found = constants(cfg, name)
        licence = found.get("LICENCE", "unknown")
        known |= {model: (repository, licence) for model, repository in found.get("PRETRAINED", {}).items()}
    if cfg.model.name not in known:
        raise UserError(
            f"There are no pretrained weights for {cfg.model.name!r}; there are for: {', '.join(sorted(known))}."
        )
    return known[cfg.model.name]


def add_adapters(cfg: DictConfig, network: Any, wider: Any) -> None:
    """Leave every weight as it is but those of `model.lora`'s matrices and of the layers that depend on the classes.

    Args:
        wider: the same network for one class more, which shows these layers.

    Raises:
        UserError: the network has no linear layers besides.
    """
    framework = import_module(f"src.kit.{cfg.framework}")
    shapes = {name: array.shape for name, array in framework.weights_to_numpy(wider).items()}
    own = framework.weights_to_numpy(network)
    heads = {name.rpartition(".")[0] for name, array in own.items() if shapes[name] != array.shape}
    if not framework.add_lora(network, cfg.model.lora, heads):
        raise UserError(
            f"{cfg.model.name} has no linear layers but the last, which model.lora could adapt: leave it out, or "
            "choose a transformer."
        )
    count = sum(array.size for array in own.values())
    trained = sum(int(np.prod(each.shape)) for each in network.parameters() if is_trained(each))
    log.info("model.lora trains %d weights, %.1f %% of the network's %d.", trained, 100 * trained / count, count)


def is_trained(parameter: Any) -> bool:
    """Whether a parameter of either framework gets gradients."""
    return not getattr(parameter, "stop_gradient", not parameter.requires_grad)


def merge_adapters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights of a run with `model.lora` under the names of the plain network: W + up @ down."""
    merged = {}
    for name, array in arrays.items():
        layer, _, part = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")
        adapted = f"{layer}.base.weight" in arrays
        if adapted and name.endswith(".base.weight"):
            array = array + arrays[f"{layer}.up.weight"] @ arrays[f"{layer}.down.weight"]
        if not adapted or part == "base":
            merged[name.replace(".base.", ".") if adapted else name] = array
    return merged


def weights_origin(cfg: DictConfig) -> dict[str, str | None]:
    """`started_from`, where the first weights came from, and their `licence`; None as far as they are unknown."""
    if cfg.model.get("pretrained"):
        repository, licence = find_pretrained(cfg)
        return {"started_from": repository, "licence": licence}
    file = cfg.model.get("weights")
    try:
        card = json.loads(load_metadata(file).get("card", "{}")) if file else {}
    except UserError:  # moved since
        card = {}
    return {"started_from": str(file) if file else None, "licence": card.get("weights", {}).get("licence")}


def inner_layers(network: Any) -> dict[str, Any]:
    """Name -> layer of everything inside a network of either framework."""
    listed = network.named_modules() if hasattr(network, "named_modules") else network.named_sublayers()
    return {name: layer for name, layer in listed if name}


def find_blocks(network: Any) -> list[Any]:
    """The smallest parts of a network, in either framework, that are one of several in a row and have two matrices.

    So a residual block or a transformer's, but neither a convolution with its normalisation nor a whole stage.
    """
    rows = ("Sequential", "ModuleList", "LayerList")
    layers = {"": network, **inner_layers(network)}
    parts = {
        name: layer
        for name, layer in layers.items()
        if name
        and type(layers[name.rpartition(".")[0]]).__name__ in rows
        and sum(len(each.shape) > 1 for each in layer.parameters()) > 1
    }
    return [layer for name, layer in parts.items() if not any(other.startswith(f"{name}.") for other in parts)]


def recompute(cfg: DictConfig, network: Any) -> None:
    """Keep only each block's input of the forward pass, and compute the rest again for the gradient.

    Raises:
        UserError: there are no blocks, or the network is compiled.
    """
    if cfg.trainer.compile:
        raise UserError("trainer.gradient_checkpointing and trainer.compile exclude each other: leave one out.")
    blocks = find_blocks(network)
    if not blocks:
        raise UserError(
            f"model={cfg.model.name} has no blocks of several layers to compute again: leave "
            "trainer.gradient_checkpointing out."
        )
    for block in blocks:
        block.forward = import_module(f"src.kit.{cfg.framework}").recomputed(block)


def frozen_layers(network: Any) -> list[Any]:
    """The layers whose every weight is frozen, in either framework; the trainers keep them in evaluation mode."""
    owned = [(layer, list(layer.parameters())) for layer in inner_layers(network).values()]
    return [layer for layer, own in owned if own and not any(is_trained(each) for each in own)]


def named_layers(network: Any, names: Sequence[str] | None) -> list[Any]:
    """The layers that `model.freeze` names, in either framework.

    Args:
        names: starts of the layers' names, whole words between dots: "layers.1" is not "layers.10".

    Raises:
        UserError: no layer has such a name.
    """
    layers = inner_layers(network)
    for start in names or ():
        if start not in layers:
            raise UserError(unknown("layer in model.freeze", start, {name.partition(".")[0] for name in layers}))
    starts = tuple(f"{start}." for start in names or ())
    return [layer for name, layer in layers.items() if f"{name}.".startswith(starts)] if starts else []


def freeze(network: Any, names: Sequence[str] | None) -> None:
    """Exclude the layers that `model.freeze` names from training.

    Raises:
        UserError: no layer has such a name, or nothing is left to train.
    """
    for parameter in (each for layer in named_layers(network, names) for each in layer.parameters()):
        if hasattr(parameter, "stop_gradient"):  # Paddle's
            parameter.stop_gradient = True
        else:
            parameter.requires_grad = False
    if names and not any(is_trained(each) for each in network.parameters()):
        raise UserError(f"model.freeze={list(names)} leaves nothing to train: freeze fewer layers.")


def parameter_groups(keys: DictConfig, named: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer: "params", "lr_scale" and, where there is to be none, "weight_decay" 0.

    Biases and normalisation are the parameters of fewer than two dimensions; decaying them only costs accuracy (He et
    al. 2019, arXiv 1812.01187, section 3.1). `layer_decay` is that of BEiT (Bao et al. 2021, arXiv 2106.08254): a
    block is a numbered part of the network, such as layers.1, or else a part of it.

    Args:
        keys: `cfg.optimizer`.
        named: the trained parameters and their names, from the input to the output.
    """
    blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in named:
        scale = float(keys.get("layer_decay", 1.0)) ** (len(blocks) - 1 - blocks.index(block_of(name)))
        decayed = bool(keys.get("decay_norms_and_biases", False)) or parameter.ndim > 1
        groups.setdefault((scale, decayed), []).append(parameter)
    order = sorted(groups, key=lambda group: (group[0], not group[1]))
    rest: list[dict[str, Any]] = [{}, {"weight_decay": 0.0}]
    return [{"params": groups[key], "lr_scale": key[0], **rest[not key[1]]} for key in order]


def block_of(name: str) -> str:
    """ "layers.1.conv.weight" -> "layers.1"; "head.weight" -> "head"."""
    parts = name.split(".")[:-1]
    numbers = [position for position, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:1])


def stem_stride(stem: str, image_size: int) -> int:
    """Return by how much a network's first layers shrink images: 1, 2 or 4.

    ImageNet's stem divides 224 pixels by 4, which would leave little of a 32-pixel image; He et al. 2015 (arXiv
    1512.03385, section 4.2) begin with a plain 3x3 convolution on CIFAR-10. In between, 2 keeps the first stage at 17
    to 32 positions a side, so up to 64 pixels no size costs more than CIFAR-10's.

    Raises:
        UserError: `stem` is no key of `STEMS`.
    """
    if stem not in STEMS:
        raise UserError(f"model.stem is {stem!r}; choose one of {', '.join(STEMS)}.")
    return next(stride for most, stride in STEMS[stem] if image_size <= most)


def build_loss(cfg: DictConfig, class_counts: np.ndarray | None = None) -> Callable[..., Any]:
    """Build `cfg.loss` in `cfg.framework`: called with (outputs, *targets), it returns a scalar tensor.

    Args:
        class_counts: int64 (K,), the training samples of each class, if the task has classes.

    Raises:
        UserError: unknown loss, or a value out of its range.
    """
    loss: Callable[..., Any] = build_component("loss", cfg.loss, cfg.framework, class_counts)
    return loss


def weigh_classes(
    method: Literal["none", "balanced", "effective", "log"], counts: np.ndarray | None, beta: float = 0.999
) -> np.ndarray | None:
    """Return the weight of each class's errors, float32 (K,), or None if all weigh the same.

    "balanced" is n / (K n_k), so that all classes weigh the same in total. "effective" divides by the effective number
    of samples, (1 - beta^n_k) / (1 - beta), so that samples beyond 1 / (1 - beta) hardly add to it, and is scaled to a
    mean of 1 (Cui et al. 2019, arXiv 1901.05555). "log" is 1 / ln(1.02 + n_k / n), from 1.4 for a class that is
    everywhere to 50 (Paszke et al. 2016, arXiv 1606.02147). A class without samples weighs 1.

    Args:
        counts: int64 (K,), the training samples of each class, or their pixels.
        beta: of "effective", in [0, 1).
    """
    if method == "none":
        return None
    assert counts is not None, "class weights need the training targets"
    weights, seen = np.ones(len(counts)), counts > 0
    present = counts[seen]
    if method == "balanced":
        weights[seen] = present.sum() / (len(present) * present)
    elif method == "log":
        weights[seen] = 1 / np.log(1.02 + present / present.sum())
    else:
        inverse = (1 - beta) / (1 - beta**present)
        weights[seen] = inverse / inverse.mean()
    return weights.astype(np.float32)
