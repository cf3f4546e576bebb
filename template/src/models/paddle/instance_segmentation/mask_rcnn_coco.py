"""Mask R-CNN on ResNet-50 that starts from torchvision's weights of COCO (BSD-3-Clause)."""

from collections.abc import Sequence

from src.kit.instance_segmentation_paddle import to_own_names, to_torchvision
from src.kit.scenes_paddle import start_from_coco
from src.models.paddle.instance_segmentation.mask_rcnn import MaskRCNN

WEIGHTS = "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"


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
    network = MaskRCNN(50, classes, channels, image_size, 256, 1000, rounded=True)
    if pretrained:
        start_from_coco(network, WEIGHTS, class_names, to_torchvision, to_own_names)
    return network


def source(name: str) -> tuple[str, str]:
    """The address of the weights, and their licence."""
    return WEIGHTS, "bsd-3-clause"
