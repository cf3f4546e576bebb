"""OpenAI's CLIP (https://github.com/openai/CLIP) as a classifier that knows its classes by their names.

`model=clip model.pretrained=true`: the last layer is what CLIP's text network makes of "a photo of a NAME.", so the
network classifies before it is trained (zero-shot: `trainer.max_epochs=0`). `model.freeze=[vision]` trains the last
layer only (linear probe); otherwise everything is trained. The images' network is timm's (https://github.com/huggingface/pytorch-image-models).
"""

import math
from collections.abc import Sequence
from typing import Literal

import timm
import torch
from torch import nn
from torch.nn import functional

from src.kit.clip import LICENCE, PUBLISHED, class_prompts, start_from_clip
from src.kit.config import UserError
from src.kit.lightning import weights_from_numpy, weights_to_numpy

TEMPERATURE = 1 / 0.07  # before training


class Clip(nn.Module):
    """float32 (B, C, H, W) -> logits (B, K): cosines of image and class embeddings, times a temperature."""

    def __init__(self, vision: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.vision = vision
        self.head = nn.Linear(width, classes, bias=False)
        nn.init.normal_(self.head.weight, std=TEMPERATURE / math.sqrt(width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.head(functional.normalize(self.vision(images), dim=-1))
        return logits


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: Literal[
        "clip-vit-base-patch32", "clip-vit-base-patch16", "clip-vit-large-patch14", "clip-vit-large-patch14-336"
    ] = "clip-vit-base-patch32",
    pretrained: bool = False,
    prompt: str = "a photo of a {}.",
    class_names: Sequence[str] | None = None,
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        name: OpenAI's name of the network.
        pretrained: Start from OpenAI's weights; the last layer starts from the names of the classes.
        prompt: What describes a class, with {} for its name.
        class_names: What the prompt calls the classes (null: their names in the data).

    Raises:
        UserError: a prompt without {}, other than one name for each class, images smaller than a patch, or a download
            failed.
    """
    prompts, size = class_prompts(prompt, class_names, classes), PUBLISHED[name]
    if size.patch > image_size:
        raise UserError(f"{name} needs images of {size.patch} pixels at least: set data.image_size=224.")
    vision = timm.create_model(
        "vit_base_patch32_clip_quickgelu_224",
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.blocks,
        num_heads=size.width // 64,
        num_classes=size.embedding,
        in_chans=channels,
        img_size=image_size,
        exportable=True,
    )
    network = Clip(vision, size.embedding, classes)
    if pretrained:
        weights_from_numpy(network, start_from_clip(name, weights_to_numpy(network), prompts))
    return network


def source(name: str) -> tuple[str, str]:
    """The Hugging Face repository of a network's weights, and their licence."""
    return PUBLISHED[name].repository, LICENCE
