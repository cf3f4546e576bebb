"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929): timm's, whose weights fit in either framework."""

from typing import Annotated, Literal

import timm
from torch import nn

from src.kit.config import Range, UserError

PRETRAINED = {  # model name -> Hugging Face repository of its ImageNet weights
    "vit_tiny": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
LICENCE = "apache-2.0"  # of these weights, as their publisher names it


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: Literal["vit_tiny", "vit_small", "vit_base"] = "vit_tiny",
    patch: Annotated[int, Range(min=1)] = 16,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        name: Size: vit_tiny has 5.7 M parameters, vit_small has 22 M, vit_base has 86 M.
        patch: Pixels of a patch's side; published weights have 16.
        dropout: Share of the features dropped in training, before each addition and the last layer.

    Raises:
        UserError: patches larger than the image.
    """
    if patch > image_size:
        raise UserError(f"model.patch={patch} is larger than data.image_size={image_size}: set model.patch=4, say.")
    network: nn.Module = timm.create_model(
        f"{name}_patch16_224",
        patch_size=patch,
        img_size=image_size,
        in_chans=channels,
        num_classes=classes,
        drop_rate=dropout,
        proj_drop_rate=dropout,
        exportable=True,
    )
    return network
