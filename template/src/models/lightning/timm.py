"""Any image network of timm (https://github.com/huggingface/pytorch-image-models, Apache-2.0), by its name there.

`model=timm model.name=convnext_tiny`; timm.txt lists the names. A tag chooses among a network's published weights:
`model.name=vit_base_patch32_clip_224.openai model.pretrained=true`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import timm
import torch
from torch import nn

from src.kit.config import Range, UserError, unknown
from src.kit.training import announce_weights
from src.kit.weights import download_weights


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: str,
    pretrained: bool = False,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    timm fits published weights to other numbers of channels and classes, and position embeddings to other sizes.

    Args:
        name: timm's name of the network, with or without a tag of published weights.
        pretrained: Start from the weights that timm publishes, usually of ImageNet.
        dropout: Share of the pooled features dropped in training.

    Raises:
        UserError: unknown tag, no published weights, an image size that the network cannot take, or a download failed.
    """
    return create(name, channels, image_size, fetch(name, pretrained), num_classes=classes, drop_rate=dropout).train()


def create(name: str, channels: int, image_size: int, weights: dict[str, Any], **settings: Any) -> nn.Module:
    """Build a network, and pass an image through it.

    Raises:
        UserError: what the network cannot be built for.
    """
    published = published_weights(name)
    if published.fixed_input_size:
        settings["img_size"] = image_size
    try:
        network: nn.Module = timm.create_model(name, in_chans=channels, exportable=True, **weights, **settings)
        with torch.no_grad():  # most find out at the first image that its size does not fit
            network.eval()(torch.zeros(1, channels, image_size, image_size))
    except (ArithmeticError, AssertionError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"timm cannot build {name} for images of {image_size} pixels ({reason}); its weights are for "
            f"data.image_size={published.input_size[-1]}."
        ) from error
    return network


def fetch(name: str, pretrained: bool) -> dict[str, Any]:
    """timm's arguments for published weights, downloaded by the kit, or for none."""
    if not pretrained:
        return {"pretrained": False}
    announce_weights(*source(name))
    file = str(download_weights(source(name)[0]))
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": file, "source": "", "custom_load": False}}


class Features(nn.Module):
    """float32 (B, C, H, W) -> a list of float32 (B, widths[k], H / r, W / r), r as asked of `build_features`."""

    def __init__(self, network: Any, levels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.levels = network, levels
        self.widths = [network.feature_info.channels()[level] for level in levels]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps = self.network(images)
        found = [(maps[level], width) for level, width in zip(self.levels, self.widths, strict=True)]
        # Swin and some others have the channels last
        return [each if each.shape[1] == width else each.permute(0, 3, 1, 2) for each, width in found]


def build_features(name: str, channels: int, image_size: int, sizes: Sequence[int], pretrained: bool) -> Features:
    """A network without its classifier.

    Args:
        sizes: by what the maps are smaller than the image; the last is the deepest map, which timm dilates to that
            size where it can, or leaves at 1/32.

    Raises:
        UserError: the network has no such maps, or what `build` raises.
    """
    weights = fetch(name, pretrained)
    build = partial(create, name, channels, image_size, weights, features_only=True)
    try:
        network: Any = build(output_stride=sizes[-1]) if sizes[-1] < 32 else build()
    except UserError:
        network = build()
    found = network.feature_info.reduction()
    if missing := [size for size in sizes if size not in found]:
        raise UserError(
            f"timm's {name} has no features at 1/{missing[0]} of the image's size: choose a network of stages, such as "
            "convnext_tiny, resnet50 or swin_tiny_patch4_window7_224."
        )
    return Features(network.train(), [*map(found.index, sizes[:-1]), len(found) - 1])


def published_weights(name: str) -> timm.models.PretrainedCfg:
    """What timm publishes under a network's name: repository, licence, input size, mean and standard deviation.

    Raises:
        UserError: the network has no such tag.
    """
    base, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise UserError(unknown(f"tag of timm's {base}", tag, tags))
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


def source(name: str) -> tuple[str, str]:
    """The Hugging Face repository of a network's published weights, and their licence.

    Raises:
        UserError: timm publishes none.
    """
    published = published_weights(name)
    if not published.hf_hub_id:
        raise UserError(f"timm publishes no weights of {name}; leave model.pretrained out.")
    return str(published.hf_hub_id), published.license or "unknown"
