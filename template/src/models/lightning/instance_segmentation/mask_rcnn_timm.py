"""Mask R-CNN on any network of timm that has features at 1/4 to 1/32 of the size."""

from typing import Annotated

from src.kit.config import Range
from src.kit.scenes_lightning import Pyramid
from src.models.lightning.instance_segmentation.mask_rcnn import MaskRCNN
from src.models.lightning.timm import build_features, source

__all__ = ["build", "source"]

BACKBONE = "detector.backbone.body.network."  # a run of model=timm with the same network fits it


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    encoder: str,
    pretrained: bool = False,
    width: Annotated[int, Range(min=1)] = 256,
    proposals: Annotated[int, Range(min=1)] = 1000,
) -> MaskRCNN:
    """Return the network, see `MaskRCNN`.

    Args:
        encoder: timm's name of the network that computes the features, with or without a tag of published weights.
        pretrained: Start the encoder from the weights that timm publishes.
        width: Channels of the pyramid and the heads.
        proposals: Regions of an image that the heads classify.
    """
    features = build_features(encoder, channels, image_size, (4, 8, 16, 32), pretrained)
    return MaskRCNN(Pyramid(features, features.widths, width), classes, image_size, width, proposals)
