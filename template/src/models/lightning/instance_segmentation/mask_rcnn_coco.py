"""Mask R-CNN on ResNet-50 that starts from torchvision's weights of COCO (BSD-3-Clause)."""

from collections.abc import Sequence

from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from src.kit.scenes_lightning import start_from_coco
from src.models.lightning.instance_segmentation.mask_rcnn import MaskRCNN, build_pyramid

WEIGHTS = MaskRCNN_ResNet50_FPN_Weights.COCO_V1


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    pretrained: bool = False,
    class_names: Sequence[str] | None = None,
) -> MaskRCNN:
    """Return the network, see `MaskRCNN`.

    Args:
        pretrained: Start from all weights of the detector; classes that COCO names alike are known at once.
        class_names: What COCO calls the classes (null: their names in the data).
    """
    network = MaskRCNN(build_pyramid(50, channels, 256), classes, image_size, 256, 1000)
    if pretrained:
        start_from_coco(network.detector, WEIGHTS, class_names)
    return network


def source(name: str) -> tuple[str, str]:
    """The address of the weights, and their licence."""
    return str(WEIGHTS.url), "bsd-3-clause"
