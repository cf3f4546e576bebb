"""OpenAI's CLIP (https://github.com/openai/CLIP) as a classifier that knows its classes by their names.

`model=clip model.pretrained=true`: the last layer is what CLIP's text network makes of "a photo of a NAME.", so the
network classifies before it is trained (zero-shot: `trainer.max_epochs=0`). `model.freeze=[vision]` trains the last
layer only (linear probe); otherwise everything is trained. The images' network is this framework's vision transformer.
"""

import math
from collections.abc import Sequence
from typing import Literal

import paddle
from paddle import nn
from paddle.nn import functional, initializer

from src.kit.clip import LICENCE, PUBLISHED, class_prompts, start_from_clip
from src.kit.config import UserError
from src.kit.paddle import weights_from_numpy, weights_to_numpy
from src.models.paddle.vit import VisionTransformer

TEMPERATURE = 1 / 0.07  # before training


class Clip(nn.Layer):
    """float32 (B, C, S, S) -> logits (B, K): cosines of image and class embeddings, times a temperature."""

    def __init__(self, vision: nn.Layer, width: int, classes: int) -> None:
        super().__init__()
        self.vision = vision
        self.head = nn.Linear(width, classes, bias_attr=False)
        initializer.Normal(std=TEMPERATURE / math.sqrt(width))(self.head.weight)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.head(functional.normalize(self.vision(images), axis=-1))


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
) -> nn.Layer:
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
    vision = VisionTransformer(
        size.embedding, channels, image_size // size.patch, size.patch, size.width, size.blocks, drop=0.0, clip=True
    )
    network = Clip(vision, size.embedding, classes)
    if pretrained:
        weights_from_numpy(network, start_from_clip(name, weights_to_numpy(network), prompts))
    return network


def source(name: str) -> tuple[str, str]:
    """The Hugging Face repository of a network's weights, and their licence."""
    return PUBLISHED[name].repository, LICENCE
