"""Compose scenes of hand-written digits on textured ground, with boxes and outlines that are known exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

LEAST_VISIBLE = 0.6  # of every digit, whatever lies on it
ATTEMPTS = 20  # to find a place for one more digit


@dataclass(frozen=True)
class Scene:
    """uint8 (S, S, 3), class numbers (M,) and what can be seen of each digit, its holes filled, bool (M, S, S)."""

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def compose(glyphs: np.ndarray, labels: np.ndarray, size: int, most: int, rng: np.random.Generator) -> Scene:
    """Put 1 to `most` of the `glyphs`, uint8 (N, 8, 8), at random places and sizes, later ones over earlier ones."""
    image = texture(size, rng)
    whole: list[np.ndarray] = []
    chosen: list[int] = []
    for number in rng.choice(len(glyphs), rng.integers(1, most + 1), replace=False):
        for _ in range(ATTEMPTS):
            side = int(rng.integers(size // 5, size // 2))
            left, top = rng.integers(0, size - side + 1, 2)
            ink = np.zeros((size, size), np.float32)
            drawn = Image.fromarray(glyphs[number]).resize((side, side), Image.Resampling.BICUBIC)
            ink[top : top + side, left : left + side] = np.asarray(drawn, np.float32) / 255
            mask = fill(ink > 0.4)
            if all(visible(old, [*whole[place + 1 :], mask]) >= LEAST_VISIBLE for place, old in enumerate(whole)):
                image = paint(image, ink, mask, rng)
                whole.append(mask)
                chosen.append(number)
                break
    masks = [mask & ~np.logical_or.reduce([np.zeros_like(mask), *whole[k + 1 :]]) for k, mask in enumerate(whole)]
    return Scene(np.rint(image).astype(np.uint8), labels[chosen], np.stack(masks))


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Soft blotches with fine grain, float32 (S, S, 3) from 0 to 255."""
    grey, colour = rng.integers(50, 206, (6, 6, 1)), rng.integers(-35, 36, (6, 6, 3))
    blotches = Image.fromarray((grey + colour).astype(np.uint8))
    soft = np.asarray(blotches.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.float32)


def paint(image: np.ndarray, ink: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend a colour in that is darker or lighter than the ground under the digit."""
    ground = image[mask].mean(axis=0)
    colour = rng.uniform(0, 60, 3) if ground.mean() > 128 else rng.uniform(195, 255, 3)
    opacity = np.clip(1.6 * ink, 0, 1)[..., None]
    blended: np.ndarray = image * (1 - opacity) + colour.astype(np.float32) * opacity
    return blended


def fill(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: an outline cannot tell of holes."""
    from scipy.ndimage import binary_fill_holes

    filled: np.ndarray = binary_fill_holes(mask)
    return filled


def visible(mask: np.ndarray, above: Sequence[np.ndarray]) -> float:
    """The share of the mask that nothing above it hides."""
    return float((mask & ~np.logical_or.reduce(above)).sum() / mask.sum())
