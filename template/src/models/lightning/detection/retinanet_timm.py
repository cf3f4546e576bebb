"""RetinaNet on any network of timm that has features at 1/8, 1/16 and 1/32 of the size."""

from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from src.kit.scenes_lightning import Pyramid
from src.models.lightning.detection.retinanet import RetinaNet
from src.models.lightning.timm import build_features, source

__all__ = ["build", "source"]

BACKBONE = "detector.backbone.body.network."  # a run of model=timm with the same network fits it


def build(*, classes: int, channels: int, image_size: int, encoder: str, pretrained: bool = False) -> RetinaNet:
    """Return the network, see `RetinaNet`.

    Args:
        encoder: timm's name of the network that computes the features, with or without a tag of published weights.
        pretrained: Start the encoder from the weights that timm publishes.
    """
    features = build_features(encoder, channels, image_size, (8, 16, 32), pretrained)
    return RetinaNet(Pyramid(features, features.widths, 256, LastLevelP6P7(256, 256)), classes)
