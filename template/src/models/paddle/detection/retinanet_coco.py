"""RetinaNet on ResNet-50 that starts from torchvision's weights of COCO (BSD-3-Clause)."""

from collections.abc import Sequence

from src.kit.scenes_paddle import start_from_coco
from src.models.paddle.detection.retinanet import RetinaNet

WEIGHTS = "https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth"


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    pretrained: bool = False,
    class_names: Sequence[str] | None = None,
) -> RetinaNet:
    """Return the network, see `RetinaNet`.

    Args:
        pretrained: Start from all weights of the detector; classes that COCO names alike are known at once.
        class_names: What COCO calls the classes (null: their names in the data).
    """
    network = RetinaNet(50, classes, channels)
    if pretrained:
        start_from_coco(network.detector, WEIGHTS, class_names)
    return network


def source(name: str) -> tuple[str, str]:
    """The address of the weights, and their licence."""
    return WEIGHTS, "bsd-3-clause"
