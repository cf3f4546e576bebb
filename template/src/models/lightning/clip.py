"""OpenAI's CLIP (https://github.com/openai/CLIP) as a classifier that knows its classes by their names.

`model=clip model.pretrained=true`: the last layer is what CLIP's text network makes of "a photo of a NAME.", so the
network classifies before it is trained (zero-shot: `trainer.max_epochs=0`). `model.freeze=[vision]` trains the last
layer only (linear probe); otherwise everything is trained. The images' network is timm's (https://github.com/huggingface/pytorch-image-models).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
from torch import nn
from torch.nn import functional

from src.kit.clip_lightning import class_weights
from src.kit.config import UserError
from src.kit.training import announce_weights
from src.kit.weights import download_weights, load_weights

VISION = {  # OpenAI's names, timm's
    "clip-vit-base-patch32": "vit_base_patch32_clip_quickgelu_224",
    "clip-vit-base-patch16": "vit_base_patch16_clip_quickgelu_224",
    "clip-vit-large-patch14": "vit_large_patch14_clip_quickgelu_224",
    "clip-vit-large-patch14-336": "vit_large_patch14_clip_quickgelu_336",
}
WEIGHTS = "open_clip_model.safetensors"  # both networks in one file
TOKENS = ("openai/clip-vit-base-patch32", "merges.txt")  # the same for all
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
        UserError: a prompt without {}, other than one name for each class, or a download failed.
    """
    if "{}" not in prompt:
        raise UserError(f"model.prompt={prompt!r} needs {{}} where the name of the class is to stand.")
    if class_names is not None and len(class_names) != classes:
        raise UserError(f"model.class_names has {len(class_names)} names for {classes} classes.")
    settings: dict[str, Any] = {"in_chans": channels, "img_size": image_size}
    file = None
    if pretrained:
        announce_weights(*source(name))
        file = download_weights(source(name)[0], WEIGHTS)
        settings["pretrained_cfg_overlay"] = {"file": str(file), "source": "", "custom_load": False}
    vision = timm.create_model(VISION[name], pretrained=pretrained, exportable=True, **settings)
    network = Clip(vision, vision.num_classes, classes)
    if file and class_names:
        merges = download_weights(*TOKENS).read_text("utf-8").splitlines()
        weights = class_weights(load_weights(file)[0], merges, [prompt.replace("{}", each) for each in class_names])
        network.head.weight.data.copy_(torch.from_numpy(weights))
    return network


def source(name: str) -> tuple[str, str]:
    """The Hugging Face repository of a network's weights, and their licence."""
    published = timm.get_pretrained_cfg(f"{VISION[name]}.openai") or timm.models.PretrainedCfg()
    return str(published.hf_hub_id), published.license or "unknown"
