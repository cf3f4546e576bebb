"""The "advanced" augmentation of annotated images: after the basic one, rotation and recolouring by Albumentations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from src.kit.augment import Pipeline
from src.kit.scenes.augment import GREY, take, visible
from src.kit.scenes.samples import IGNORE, Sample


def build(basic: Callable[[Sample, np.random.Generator], Sample]) -> Callable[[Sample, np.random.Generator], Sample]:
    """Return the augmentation that follows `basic`: rotation by up to 8 and shear by up to 4 degrees, brightness,
    contrast and colour, and sometimes grey, blur, noise or JPEG artefacts.
    """
    pipeline = Pipeline(steps)

    def augment(sample: Sample, rng: np.random.Generator) -> Sample:
        sample = basic(sample, rng)
        data: dict[str, Any] = {"image": sample.image, "bboxes": sample.boxes, "index": np.arange(len(sample.boxes))}
        if sample.semantic is not None:
            data["mask"] = sample.semantic
        if sample.masks is not None and len(sample.masks):
            data["masks"] = (sample.masks.view(np.uint8) != 0).view(np.uint8)  # Pillow's True is a byte of 255
        result = pipeline(rng, **data)
        kept = np.asarray(result["index"], np.int64).ravel()
        boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        if "masks" in data:  # outside, they are filled as the class map is
            sample = replace(sample, masks=result["masks"] == 1)
        moved = replace(take(sample, kept), image=result["image"], boxes=boxes, semantic=result.get("mask"))
        return visible(moved)

    return augment


def steps(a: Any) -> Any:
    """Return the pipeline."""
    worse = [a.GaussianBlur((3, 5)), a.GaussNoise((0.02, 0.06)), a.ImageCompression(quality_range=(50, 95))]
    return a.Compose(
        [
            a.Affine(rotate=(-8, 8), shear=(-4, 4), fill=GREY, fill_mask=IGNORE, p=0.5),
            a.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.5, 1.5), (-0.02, 0.02), p=0.8),
            a.OneOf([a.ToGray(p=0.2), *worse], p=0.2),
        ],
        # an index stands for labels, crowd flags and outlines
        bbox_params=a.BboxParams("pascal_voc", label_fields=["index"]),
    )
