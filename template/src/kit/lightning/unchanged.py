"""How torchvision's detectors are told to leave images as the loader made them."""

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList


class Unchanged(nn.Module):
    """In place of torchvision's resizing and normalising, which the loader has done; masks are drawn later."""

    def forward(
        self, images: torch.Tensor, objects: list[dict[str, torch.Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, torch.Tensor]] | None]:
        return ImageList(images, [tuple(images.shape[2:])] * len(images)), objects

    def postprocess(self, found: list[dict[str, torch.Tensor]], *sizes: object) -> list[dict[str, torch.Tensor]]:
        return found
