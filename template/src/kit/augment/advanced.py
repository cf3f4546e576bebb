"""`data.augment=advanced`: Albumentations (https://albumentations.ai) for classified images."""

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
    """A deterministic Albumentations pipeline that several threads can call at once.

    Each thread builds its own, because a pipeline stores its random state and the current image's parameters.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        """`make(albumentations)` returns a new `Compose`."""
        self.compose = make(import_albumentations())

    def __call__(self, rng: np.random.Generator, **data: Any) -> dict[str, Any]:
        """Transform `data`, drawing random numbers from `rng`."""
        # one generator for all transforms: after `set_random_seed` all of them would draw the same numbers
        self.compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        result: dict[str, Any] = self.compose(**data)
        return result


@cache
def import_albumentations() -> Any:
    """Import Albumentations, which takes a second the first time.

    Raises:
        UserError: Albumentations isn't installed.
    """
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or it asks the network for a newer version
    without_torch = "torch" not in sys.modules
    if without_torch:  # it imports torch if it can, which takes seconds and isn't needed
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import albumentations
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.augment=advanced needs {error.name}: run `pip install -r requirements-cpu.txt`, or use basic."
        ) from error
    finally:
        if without_torch:
            del sys.modules["torch"]
    import cv2

    cv2.setNumThreads(0)  # the loader already prepares batches in threads
    return albumentations


def build_advanced(flippable: bool) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Return a function that augments each image of uint8 (B, C, H, W) with 1 or 3 channels.

    Scale by 0.8 to 1.25, shift by up to an eighth, rotate by up to 10 and shear by up to 5 degrees; change brightness,
    contrast and colour; blur or add noise; cut a hole of up to 30 % of each side (https://arxiv.org/abs/1708.04552);
    mirror if `flippable`. The uncovered border is black.
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
