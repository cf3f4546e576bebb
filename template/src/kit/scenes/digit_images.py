"""Compose images of hand-written digits on a textured background, with exact outlines."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.kit.scenes.annotations import extent

LEAST_VISIBLE = 0.9  # of every digit: smaller remnants can't be told apart
ATTEMPTS = 20  # at placing another digit
SHADOW = 5  # pixels across
REACH = SHADOW // 2  # of the shadow beyond the ink


@dataclass(frozen=True)
class Scene:
    """An image with M digits."""

    image: np.ndarray  # uint8 (S, S, 3)
    labels: np.ndarray  # class numbers (M,)
    masks: np.ndarray  # bool (M, S, S): the visible part of each digit, with its holes filled


def compose_scene(glyphs: np.ndarray, labels: np.ndarray, size: int, most: int, rng: np.random.Generator) -> Scene:
    """Put half of `most` to `most` of the `glyphs`, uint8 (N, 8, 8), at random places, later ones over earlier ones.

    Their height is a quarter to half of the scene's. There are fewer if there is no room for more.
    """
    image = texture(size, rng)
    masks: list[np.ndarray] = []  # the visible parts so far
    areas: list[int] = []  # of the whole digits
    chosen: list[int] = []
    for number in rng.choice(len(glyphs), rng.integers((most + 1) // 2, most + 1), replace=False):
        for _ in range(ATTEMPTS):
            drawn = enlarge(glyphs[number], int(rng.integers(size // 4, size // 2)))
            left, top = rng.integers(0, size - len(drawn) + 1, 2)
            region = np.s_[top : top + len(drawn), left : left + len(drawn)]
            filled = fill_holes(drawn > 0.4)
            seen = [mask.sum() - (mask[region] & filled).sum() for mask in masks]
            if all(count / area >= LEAST_VISIBLE for count, area in zip(seen, areas, strict=True)):
                ink, own = np.zeros((size, size), np.float32), np.zeros((size, size), bool)
                ink[region], own[region] = drawn, filled
                image = paint(image, ink, rng)
                for mask in masks:
                    mask[region] &= ~filled
                masks.append(own)
                areas.append(int(filled.sum()))
                chosen.append(number)
                break
    return Scene(np.rint(image).astype(np.uint8), labels[chosen], np.stack(masks))


def enlarge(glyph: np.ndarray, side: int) -> np.ndarray:
    """Enlarge uint8 (8, 8) to float32 of about (side, side) in 0..1, with ink that fades out at every edge."""
    frame = np.zeros((10, 10), np.uint8)
    frame[1:-1, 1:-1] = glyph
    framed = Image.fromarray(frame).resize((side * 5 // 4, side * 5 // 4), Image.Resampling.BICUBIC)
    half = side // 16  # of the frame
    return np.asarray(framed, np.float32)[half:-half, half:-half] / 255


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw dark soft blotches with fine grain, float32 (S, S, 3) in 0..255."""
    grey, colour = rng.integers(30, 131, (6, 6, 1)), rng.integers(-30, 31, (6, 6, 3))
    blotches = Image.fromarray((grey + colour).astype(np.uint8))
    soft = np.asarray(blotches.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return np.clip(soft + rng.normal(0, 10, soft.shape), 0, 255).astype(np.float32)


def paint(image: np.ndarray, ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend in a light colour with a shadow around it, which shows which of two digits is on top."""
    from scipy.ndimage import maximum_filter

    around = tuple(slice(max(0, used.start - REACH), used.stop + REACH) for used in extent(ink))
    shadow = 0.8 * np.clip(1.6 * maximum_filter(ink[around], SHADOW), 0, 1)[..., None]
    opacity = np.clip(1.6 * ink[around], 0, 1)[..., None]
    colour = rng.uniform(160, 255, 3).astype(np.float32)
    painted = image.copy()
    painted[around] = image[around] * (1 - shadow) * (1 - opacity) + colour * opacity
    return painted


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask, since outlines have none: what no path beside the ink joins with the outside."""
    import cv2

    outside = np.zeros(np.add(mask.shape, 2), np.uint8)
    outside[1:-1, 1:-1] = mask
    cv2.floodFill(outside, None, (0, 0), 1)
    return mask | (outside[1:-1, 1:-1] == 0)
