"""The "advanced" augmentation of classified images, by Albumentations (https://albumentations.ai)."""

import os
import random
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from src.kit.config import UserError


class Pipeline(threading.local):
    """An Albumentations pipeline that is deterministic and may be called from several threads at once.

    Each thread makes its own: a pipeline keeps its random state and the parameters of the image at hand.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """`make(albumentations)` returns a new `Compose`."""
        self.compose = make(library())

    def __call__(self, rng: np.random.Generator, **data: Any) -> dict[str, Any]:
        """Transform `data` with the next random numbers of `rng`."""
        # one generator for all steps: after `set_random_seed` every step would draw the same numbers as the others
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result: dict[str, Any] = self.compose(**data)
        return result


@cache
def library() -> Any:
    """Import Albumentations: the first time it takes a second.

    Raises:
        UserError: it is not installed.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for a newer version
    alone = "torch" not in sys.modules
    if alone:  # it imports torch where it can, which takes seconds and has no place in a process of another framework
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import albumentations
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.augment=advanced needs {error.name}: run `pip install -r requirements-cpu.txt`, or use basic."
        ) from error
    finally:
        if alone:
            del sys.modules["torch"]
    import cv2

    cv2.setNumThreads(0)  # batches are prepared in threads already
    return albumentations


def build(flippable: bool) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return the augmentation of uint8 (B, C, H, W) with 1 or 3 channels, each image by its own random amounts.

    Scaling by 0.8 to 1.25, moving by up to an eighth, rotation by up to 10 and shear by up to 5 degrees, brightness,
    contrast and colour, blur or noise, and a hole of up to 30 % of each side (https://arxiv.org/abs/1708.04552);
    mirroring where `flippable`. What comes in from outside the image is black.
    """

    def make(a: Any) -> Any:
        return a.Compose(
            [
                *([a.HorizontalFlip(p=0.5)] if flippable else []),
                a.Affine(
                    scale={"x": (0.8, 1.25), "y": (0.8, 1.25)},
                    translate_percent=(-0.125, 0.125),
                    rotate=(-10, 10),
                    shear=(-5, 5),
                    p=0.8,
                ),
                a.ColorJitter(0.3, 0.3, 0.3, 0.03, p=0.8),
                a.OneOf([a.GaussianBlur((3, 3)), a.GaussNoise((0.02, 0.08))], p=0.2),
                a.CoarseDropout((1, 1), (0.1, 0.3), (0.1, 0.3), fill=0, p=0.25),
            ]
        )

    pipeline = Pipeline(make)

    def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out = np.empty_like(images, order="C")
        for before, after in zip(images, out, strict=True):
            image = np.ascontiguousarray(before.transpose(1, 2, 0))  # (C, H, W) -> (H, W, C)
            after[:] = pipeline(rng, image=image)["image"].transpose(2, 0, 1)
        return out

    return augment
