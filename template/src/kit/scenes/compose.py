"""Compose scenes of hand-written digits on textured ground, with boxes and outlines that are known exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.kit.scenes.outlines import extent

LEAST_VISIBLE = 0.9  # of every digit, whatever lies on it: remnants of one cannot be told apart
ATTEMPTS = 20  # to find a place for one more digit
SHADOW = 5  # pixels across
REACH = SHADOW // 2  # of the shadow beyond the ink


@dataclass(frozen=True)
class Scene:
    """uint8 (S, S, 3), class numbers (M,) and what can be seen of each digit, its holes filled, bool (M, S, S)."""

    image: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def compose(glyphs: np.ndarray, labels: np.ndarray, size: int, most: int, rng: np.random.Generator) -> Scene:
    """Put half of `most` to `most` of the `glyphs`, uint8 (N, 8, 8), anywhere, later ones over earlier ones.

    They are a quarter to half as high as the scene. There are fewer of them where there is no room for more.
    """
    image = texture(size, rng)
    whole: list[np.ndarray] = []
    chosen: list[int] = []
    for number in rng.choice(len(glyphs), rng.integers((most + 1) // 2, most + 1), replace=False):
        for _ in range(ATTEMPTS):
            drawn = enlarge(glyphs[number], int(rng.integers(size // 4, size // 2)))
            side = len(drawn)
            left, top = rng.integers(0, size - side + 1, 2)
            place = np.s_[top : top + side, left : left + side]
            ink, mask = np.zeros((size, size), np.float32), np.zeros((size, size), bool)
            ink[place], mask[place] = drawn, fill(drawn > 0.4)
            if all(visible(old, [*whole[at + 1 :], mask]) >= LEAST_VISIBLE for at, old in enumerate(whole)):
                image = paint(image, ink, rng)
                whole.append(mask)
                chosen.append(number)
                break
    masks = [mask & ~np.logical_or.reduce([np.zeros_like(mask), *whole[k + 1 :]]) for k, mask in enumerate(whole)]
    return Scene(np.rint(image).astype(np.uint8), labels[chosen], np.stack(masks))


def enlarge(glyph: np.ndarray, side: int) -> np.ndarray:
    """uint8 (8, 8) -> float32 of about (side, side) from 0 to 1, whose ink fades out at every edge."""
    framed = Image.fromarray(np.pad(glyph, 1)).resize((side * 5 // 4, side * 5 // 4), Image.Resampling.BICUBIC)
    half = side // 16  # of the frame
    return np.asarray(framed, np.float32)[half:-half, half:-half] / 255


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Dark soft blotches with fine grain, float32 (S, S, 3) from 0 to 255."""
    grey, colour = rng.integers(30, 131, (6, 6, 1)), rng.integers(-30, 31, (6, 6, 3))
    blotches = Image.fromarray((grey + colour).astype(np.uint8))
    soft = np.asarray(blotches.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return np.clip(soft + rng.normal(0, 10, soft.shape), 0, 255).astype(np.float32)


def paint(image: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend a light colour in, with a shadow around it: where two digits meet, one sees which of them is on top."""
    from scipy.ndimage import maximum_filter

    around = tuple(slice(max(0, used.start - REACH), used.stop + REACH) for used in extent(ink))
    shadow = 0.8 * np.clip(1.6 * maximum_filter(ink[around], SHADOW), 0, 1)[..., None]
    opacity = np.clip(1.6 * ink[around], 0, 1)[..., None]
    colour = rng.uniform(160, 255, 3).astype(np.float32)
    painted = image.copy()
    painted[around] = image[around] * (1 - shadow) * (1 - opacity) + colour * opacity
    return painted


def fill(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: an outline cannot tell of holes."""
    from scipy.ndimage import binary_fill_holes

    filled: np.ndarray = binary_fill_holes(mask)
    return filled


def visible(mask: np.ndarray, above: Sequence[np.ndarray]) -> float:
    """The share of the mask that nothing above it hides."""
    return float((mask & ~np.logical_or.reduce(above)).sum() / mask.sum())
