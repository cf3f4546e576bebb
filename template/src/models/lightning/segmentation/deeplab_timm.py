"""DeepLabV3+ on any network of timm that has features at 1/4 and 1/16 of the size."""

from typing import Annotated

from src.kit.config import Range
from src.models.lightning.segmentation.deeplab import DeepLabV3Plus
from src.models.lightning.timm import build_features, source

__all__ = ["build", "source"]

BACKBONE = "backbone.network."  # a run of model=timm with the same network fits it


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    encoder: str,
    pretrained: bool = False,
    width: Annotated[int, Range(min=1)] = 256,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1,
) -> DeepLabV3Plus:
    """Return the network, see `DeepLabV3Plus`.

    Args:
        encoder: timm's name of the network that computes the features, with or without a tag of published weights.
        pretrained: Start the encoder from the weights that timm publishes.
        width: Channels of the context and the decoder.
        dropout: Share of the context's features dropped in training.
    """
    features = build_features(encoder, channels, image_size, (4, 16), pretrained)
    low, high = features.widths
    return DeepLabV3Plus(features, low, high, classes, width, dropout)
