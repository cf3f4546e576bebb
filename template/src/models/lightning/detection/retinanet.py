"""RetinaNet (Lin et al. 2017, arXiv 1708.02002): torchvision's, as an example of how a library's model is added."""

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from src.kit.lightning import Unchanged
from src.kit.scenes import OBJECT

DETECTIONS = 300  # an image


class RetinaNetResNet18(nn.Module):
    """In training it takes the objects too and returns its losses (2,), which `loss=network` sums up.

    In evaluation (B, C, S, S) gives (B, 300, 6) as `src/tasks/detection.py` wants it: x1, y1, x2, y2 in pixels, the
    score in 0..1, the class number; rows of zeros where fewer objects are found.
    """

    takes_targets = True

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        resnet = {"backbone_name": "resnet18", "weights": None, "norm_layer": nn.BatchNorm2d, "trainable_layers": 5}
        levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
        self.detector = RetinaNet(resnet_fpn_backbone(**resnet, **levels), num_classes, detections_per_img=DETECTIONS)
        self.detector.backbone.body.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.detector.transform = Unchanged()  # the loader has resized and normalised

    def forward(self, images: torch.Tensor, *objects: torch.Tensor) -> torch.Tensor:
        if self.training:
            labels, boxes, kinds = objects
            wanted = [{"labels": labels[k, on], "boxes": boxes[k, on]} for k, on in enumerate(kinds == OBJECT)]
            return torch.stack(list(self.detector(images, wanted).values()))
        return torch.stack([pad(found) for found in self.detector(images)])


def pad(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """One image's detections as rows (300, 6)."""
    rows = torch.cat([found["boxes"], found["scores"][:, None], found["labels"][:, None]], dim=1)
    return functional.pad(rows, (0, 0, 0, DETECTIONS - len(rows)))
