"""Random changes of training images: shifts and mirrors, Albumentations, MixUp and CutMix."""

import os
import random
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from src.kit.config import UserError

__all__ = [
    "AUGMENTATIONS",
    "BORDERS",
    "Pipeline",
    "build_augmentation",
    "choose_mirrored",
    "farthest_shift",
    "mirror",
    "mix_batch",
    "pad",
]


AUGMENTATIONS = ("none", "basic", "advanced")
BORDERS: dict[str, Literal["constant", "reflect"]] = {"black": "constant", "mirror": "reflect"}  # as NumPy names them

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def build_augmentation(name: str, flippable: bool, farthest: int | None = None, border: str = "black") -> Augmentation:
    """Return one of `AUGMENTATIONS`, a function of uint8 (B, C, H, W) and a generator that changes each image.

    "basic" shifts only: the loader mirrors, see `choose_mirrored`.

    The same images and generator state give the same result, from any thread. "basic" takes microseconds per batch;
    "advanced" takes 0.25 ms per image of up to 32 pixels, and 1 ms per image of 224.

    Args:
        flippable: whether "advanced" may mirror images.
        farthest, border: of the shifts of "basic", see `shift`.
    """
    assert name in AUGMENTATIONS, name
    if name == "none":
        return lambda images, rng: images
    if name == "basic":
        return partial(shift, farthest=farthest, border=border)
    return build_advanced(flippable)


def farthest_shift(pixels: int | None, height: int) -> int:
    """By how many pixels `shift` moves images of this height at most: `data.shift`, or an eighth (4 of 32)."""
    return max(1, height // 8) if pixels is None else pixels


def shift(
    images: np.ndarray, rng: np.random.Generator, farthest: int | None = None, border: str = "black"
) -> np.ndarray:
    """Shift each image of uint8 (B, C, H, W) by up to `farthest_shift` pixels, in both directions.

    Equals a random crop of the padded image (https://arxiv.org/abs/1512.03385).

    Args:
        border: what is uncovered, one of `BORDERS`: black, or the image mirrored at its outermost pixels.
    """
    batch, channels, height, width = images.shape
    most = farthest_shift(farthest, height)
    padded = pad(images, most, border)
    windows = sliding_window_view(padded, (1, channels, height, width))  # (B, 1, moves, moves, 1, C, H, W)
    top, left = rng.integers(0, 2 * most + 1, (2, batch))
    return windows[np.arange(batch), 0, top, left, 0]


def pad(images: np.ndarray, margin: int, border: str) -> np.ndarray:
    """Add a margin to (B, C, H, W): (B, C, H + 2 margin, W + 2 margin)."""
    return np.pad(images, [(0, 0), (0, 0), (margin, margin), (margin, margin)], BORDERS[border])


def choose_mirrored(seed: int, samples: int) -> np.ndarray:
    """Which samples of a split are mirrored in even epochs, bool (N,): half of them; the others are in odd epochs.

    So two epochs show each sample either way (Jordan 2024, https://arxiv.org/abs/2404.00498).
    """
    return np.random.default_rng([seed, samples]).random(samples) < 0.5


def mirror(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mirror the images of (B, C, H, W) where bool (B,) says so, left to right and in place."""
    images[chosen] = images[chosen][..., ::-1]
    return images


def mix_batch(
    images: np.ndarray,
    targets: np.ndarray,
    num_classes: int,
    mixup_alpha: float,
    cutmix_alpha: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image with another one of the batch, by MixUp or CutMix. If both are on, pick one per batch at random.

    Args:
        images: float32 (B, C, H, W), normalised; modified in place.
        targets: int64 (B,), below `num_classes`.
        mixup_alpha, cutmix_alpha: the first image's share is drawn from Beta(alpha, alpha): uniform for 1, close to 0
            or 1 for a small alpha. 0 turns the method off.

    Returns:
        The images, and float32 (B, num_classes) targets whose rows sum to 1. With both alphas 0 they are one-hot.
    """
    soft = np.zeros((len(targets), num_classes), np.float32)
    soft[np.arange(len(targets)), targets] = 1
    alphas = [(mixup, mixup_alpha), (cutmix, cutmix_alpha)]
    choices = [(method, alpha) for method, alpha in alphas if alpha > 0]
    if not choices:
        return images, soft
    method, alpha = choices[rng.integers(len(choices))]
    partners = rng.permutation(len(images))
    share = np.float32(method(images, partners, rng.beta(alpha, alpha), rng))
    return images, share * soft + (1 - share) * soft[partners]


def mixup(images: np.ndarray, partners: np.ndarray, share: float, rng: np.random.Generator) -> float:
    """Blend each image with its partner (Zhang et al. 2017, https://arxiv.org/abs/1710.09412); return `share`."""
    others = images[partners]
    others -= images
    others *= np.float32(1 - share)
    images += others
    return share


def cutmix(images: np.ndarray, partners: np.ndarray, share: float, rng: np.random.Generator) -> float:
    """Paste a box of each partner (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The box has the proportions of the image and any centre; what reaches beyond the edge is cut off.

    Returns:
        The share of the pixels that stay.
    """
    height, width = images.shape[2:]
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        np.clip(np.rint(rng.integers(length) + np.array([-0.5, 0.5]) * length * side), 0, length).astype(int)
        for length in (height, width)
    )
    images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (height * width)


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
