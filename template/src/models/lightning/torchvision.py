"""Any image classifier of torchvision (https://github.com/pytorch/vision, BSD-3-Clause), by its name there.

`model=torchvision model.name=convnext_tiny`; torchvision.txt lists the names. A tag chooses among a network's published
weights: `model.name=resnet50.IMAGENET1K_V1 model.pretrained=true`.
"""

from typing import Annotated, Any

import torch
from torch import nn
from torchvision import models

from src.kit.config import Range, UserError, unknown
from src.kit.lightning import download_state
from src.kit.training import announce_weights
from src.kit.weights import adapt_stem

WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}  # outputs that only training would have


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: str,
    pretrained: bool = False,
    dropout: Annotated[float | None, Range(min=0, below=1)] = None,
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        name: torchvision's name of the network, with or without a tag of published weights.
        pretrained: Start from the weights that torchvision publishes, of ImageNet.
        dropout: Share of the features dropped before the last layer (null: the network's own).

    Raises:
        UserError: unknown tag, an image size or a key that the network cannot take, or a download failed.
    """
    base, keys = name.partition(".")[0], dict[str, Any]()
    if base in ("googlenet", "inception_v3"):
        keys = dict(WITHOUT_AUXILIARY)
    if base.startswith("vit_"):
        keys["image_size"] = image_size
    if dropout is not None:
        keys["dropout"] = dropout
    try:
        network: nn.Module = models.get_model(base, weights=None, num_classes=classes, **keys)
        take_channels(network, channels)
        with torch.no_grad():  # most find out at the first image that its size does not fit
            network.eval()(torch.zeros(1, channels, image_size, image_size))
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"torchvision cannot build {name} for images of {image_size} pixels ({reason}).") from error
    if pretrained:
        announce_weights(*source(name))
        start(network, download_state(source(name)[0]), image_size)
    return network.train()


def take_channels(network: nn.Module, channels: int) -> None:
    """Give the first convolution another number of input channels."""
    place, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if channels != first.in_channels:
        keys: Any = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
        parent, _, own = place.rpartition(".")
        bias = first.bias is not None
        setattr(network.get_submodule(parent), own, nn.Conv2d(channels, first.out_channels, bias=bias, **keys))


def published_weights(name: str) -> Any:
    """torchvision's entry of a network's published weights; without a tag those that it recommends.

    Raises:
        UserError: the network has no such tag.
    """
    base, _, tag = name.partition(".")
    known = models.get_model_weights(base)
    if tag and tag not in known.__members__:
        raise UserError(unknown(f"tag of torchvision's {base}", tag, list(known.__members__)))
    return known[tag or "DEFAULT"]


def source(name: str) -> tuple[str, str]:
    """The address of a network's published weights, and their licence: SWAG's forbids commercial use."""
    published = published_weights(name)
    return str(published.url), "cc-by-nc-4.0" if "SWAG" in published.name else "bsd-3-clause"


def start(network: nn.Module, weights: dict[str, torch.Tensor], image_size: int) -> None:
    """Load weights that may be for other classes, channels and image sizes: what does not fit keeps its values."""
    own = network.state_dict()
    if "encoder.pos_embedding" in own:
        patch = int(weights["conv_proj.weight"].shape[-1])
        weights = dict(models.vision_transformer.interpolate_embeddings(image_size, patch, weights))
    found = {key: value.numpy() for key, value in weights.items() if key in own and value.ndim > 0}
    fitted = adapt_stem(found, {key: value.numpy() for key, value in own.items()})
    kept = {key: value for key, value in fitted.items() if value.shape == tuple(own[key].shape)}
    network.load_state_dict(own | {key: torch.from_numpy(value) for key, value in kept.items()})
