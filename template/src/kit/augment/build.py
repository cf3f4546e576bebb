"""How training images are changed at random: `data.augment`, `data.mixup_alpha` and `data.cutmix_alpha`."""

from collections.abc import Callable

import numpy as np

from src.kit.augment import basic

AUGMENTATIONS = ("none", "basic", "advanced")

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def build(name: str, flippable: bool) -> Augmentation:
    """Return one of `AUGMENTATIONS` for uint8 (B, C, H, W): each image by its own random amounts.

    The same images and generator give the same result, from any thread. "basic" takes microseconds a batch, "advanced"
    a quarter of a millisecond for each image of up to 32 pixels and one for each of 224.

    Args:
        flippable: whether images may be mirrored.
    """
    assert name in AUGMENTATIONS, name
    if name == "none":
        return lambda images, rng: images
    if name == "basic":
        return basic.shift_flip if flippable else basic.shift
    from src.kit.augment import advanced

    return advanced.build(flippable)
