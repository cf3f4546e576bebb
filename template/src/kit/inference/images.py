"""Images of one class each: from files or arrays to a network's input, and from its logits to classes.

`input` of the card: shape [C, H, W], mean and std (one value per channel, for pixels from 0 to 1), and flippable
(whether a mirrored image still shows its class); of files also pixels, their `Reading`. `output`: kind "classes".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference.batches import Batch, Size, size_of
from src.kit.inference.card import Card
from src.kit.inference.decoding import decode as decode_file
from src.kit.inference.decoding import normalize, resize, to_channels
from src.kit.inference.depth import PLAIN

TOP = 5  # classes named in a prediction


def read(card: Card, source: Path | str | bytes | np.ndarray) -> np.ndarray:
    """Decode a file, its content, or an array (H, W) or (H, W, 1 or 3 or 4 or C) of uint8: uint8 (h, w, 1 or 3 or C).

    Files are decoded as in training, which already crops them to the network's size.

    Raises:
        UserError: no such file, not an image, or an array of another type or shape.
    """
    if isinstance(source, np.ndarray):
        return check_pixels(source, card.input["shape"][0])
    return decode_file(existing(source), card.input["shape"][1], card.input.get("pixels") or PLAIN)


def existing(source: Path | str | bytes) -> Path | bytes:
    """A file's path, or its content.

    Raises:
        UserError: there is no such file.
    """
    if isinstance(source, bytes):
        return source
    if not Path(source).is_file():
        raise UserError(f"{source} does not exist: name an image file or pass an array.")
    return Path(source)


def check_pixels(pixels: np.ndarray, channels: int = 3) -> np.ndarray:
    """An image as uint8 (H, W, 1 or 3 or `channels`), without an alpha channel.

    Raises:
        UserError: another type or shape.
    """
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4, channels))
    if pixels.dtype != np.uint8 or not fits or 0 in pixels.shape:
        raise UserError(
            f"An image is uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not {pixels.dtype} of shape {pixels.shape}."
        )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels[..., :3] if pixels.shape[2] == 4 != channels else pixels


def prepare(card: Card, items: Sequence[np.ndarray]) -> Batch:
    """Crop the centre, resize and normalise what `read` returns: float32 (B, C, H, W)."""
    channels, height, width = card.input["shape"]
    planes = np.empty((len(items), channels, height, width), np.uint8)
    for plane, pixels in zip(planes, items, strict=True):
        square = to_channels(crop(pixels, height, width)[None], channels).transpose(0, 3, 1, 2)
        plane[:] = resize(np.ascontiguousarray(square), (height, width))[0]
    return Batch(normalize(planes, card.input["mean"], card.input["std"]), [size_of(item) for item in items])


def crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest central part (h, w, C) of an image that has the shape of height x width."""
    rows, columns = pixels.shape[:2]
    kept_rows, kept_columns = min(rows, round(columns * height / width)), min(columns, round(rows * width / height))
    kept_rows, kept_columns = max(1, kept_rows), max(1, kept_columns)
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return pixels[top : top + kept_rows, left : left + kept_columns]


def decode(card: Card, outputs: np.ndarray, sizes: Sequence[Size]) -> list[np.ndarray]:
    """Logits (B, K) -> the probabilities of each image, float32 (K,)."""
    return list(softmax(outputs))


def fuse(card: Card, results: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of several results for one image."""
    return np.asarray(np.mean(results, axis=0, dtype=np.float32))


def describe(card: Card, result: np.ndarray, size: Size) -> dict[str, Any]:
    """{"class", "score" (its probability), "scores": {class: probability} of the five likeliest, best first}."""
    best = np.argsort(-result, kind="stable")[:TOP]
    scores = {card.classes[k]: float(result[k]) for k in best}
    return {"class": card.classes[best[0]], "score": float(result[best[0]]), "scores": scores}


def features(card: Card, batch: Batch) -> dict[str, np.ndarray]:
    """Brightness, contrast and detail (how much neighbouring pixels differ) of some 64 rows of each image."""
    rows = batch.arrays[:, :, :: max(1, batch.arrays.shape[2] // 64)]
    found = {"brightness": rows.mean(axis=(1, 2, 3)), "contrast": rows.std(axis=(1, 2, 3))}
    if rows.shape[3] > 1:
        found["detail"] = np.abs(np.diff(rows, axis=3)).mean(axis=(1, 2, 3))
    return found


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Turn logits (N, K) into probabilities that sum to 1 along each row."""
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
