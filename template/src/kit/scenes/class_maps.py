"""Class maps: a PNG for each image whose pixels are class ids."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from src.kit.config import UserError

IGNORE = 255  # a pixel of no class, or of one that is not trained


def read_class_map(path: Path, numbers: Mapping[int, int], height: int, width: int) -> np.ndarray:
    """Read class numbers uint8 (H, W): `numbers[id]` where that is 0 or more, `IGNORE` for all other ids.

    Raises:
        UserError: a file that is missing, damaged, not of 8 bits or of another size.
    """
    try:
        with Image.open(path) as stored:
            ids = np.asarray(stored)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"Cannot read the class map {path}: {error}.") from error
    if ids.shape != (height, width) or ids.dtype != np.uint8:
        raise UserError(
            f"The class map {path} is {ids.dtype} of shape {ids.shape} and must be an 8-bit grey or palette PNG of "
            f"{width} x {height} pixels, as its image."
        )
    table = np.full(256, IGNORE, np.uint8)
    for identifier, number in numbers.items():
        if number >= 0 and identifier < 256:
            table[identifier] = number
    mapped: np.ndarray = table[ids]
    return mapped
