"""Adapt torchvision's detectors to batches that the loader has already resized and normalised."""

import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

__all__ = ["KeepImages"]


class KeepImages(nn.Module):
    """Replaces `detector.transform`: leaves images, boxes and masks as they are."""

    def forward(
        self, images: torch.Tensor, objects: list[dict[str, torch.Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, torch.Tensor]] | None]:
        return ImageList(images, [tuple(images.shape[2:])] * len(images)), objects

    def postprocess(self, detections: list[dict[str, torch.Tensor]], *sizes: object) -> list[dict[str, torch.Tensor]]:
        return detections
