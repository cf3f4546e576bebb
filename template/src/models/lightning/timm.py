"""Any image network of timm (https://github.com/huggingface/pytorch-image-models, Apache-2.0), by its name there.

`model=timm model.name=convnext_tiny`; timm.txt lists the names. A tag chooses among a network's published weights:
`model.name=vit_base_patch32_clip_224.openai model.pretrained=true`.
"""

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
    settings: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "drop_rate": dropout}
    published = published_weights(name)
    if published.fixed_input_size:
        settings["img_size"] = image_size
    if pretrained:
        announce_weights(*source(name))
        file = download_weights(source(name)[0])
        settings["pretrained_cfg_overlay"] = {"file": str(file), "source": "", "custom_load": False}
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, exportable=True, **settings)
        with torch.no_grad():  # most find out at the first image that its size does not fit
            network.eval()(torch.zeros(1, channels, image_size, image_size))
    except (ArithmeticError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"timm cannot build {name} for images of {image_size} pixels ({reason}); its weights are for "
            f"data.image_size={published.input_size[-1]}."
        ) from error
    return network.train()


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
