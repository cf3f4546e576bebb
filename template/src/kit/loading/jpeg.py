"""JPEG files by libjpeg-turbo, at a reduced scale and without the interpreter's lock."""

import io
import threading
from functools import cache
from types import ModuleType

import numpy as np
from PIL import Image

MAX_PIXELS = 178_000_000  # as RGB half a gigabyte; a few bytes of a file can claim far more
ENLARGED = 0.95  # a JPEG may be decoded at a scale that leaves so much of the wanted size, and enlarged by the rest
ORIENTATION = 0x0112  # EXIF tag
KEPT_BYTES = 16 << 20  # of each thread's buffer
buffers = threading.local()  # mapping new memory for each image takes as long as resizing it


def read_jpeg(content: bytes, image_size: int | None) -> np.ndarray | None:
    """Decode a JPEG to uint8 (H, W, 3), valid until this thread's next call; None where Pillow should try.

    `image_size` allows any size whose short side is at least `ENLARGED` times as long.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
            return None
        # without a least factor of 2 it would choose 7/8 or 5/8, for which there are no vector instructions
        least = round(ENLARGED * image_size) if image_size else min(height, width)
        scale = {"min_height": least, "min_width": least, "min_factor": 2} if min(height, width) >= 2 * least else {}
        if not hasattr(buffers, "jpeg"):
            buffers.jpeg = np.empty(KEPT_BYTES, np.uint8)
        buffer = buffers.jpeg if 3 * height * width <= KEPT_BYTES else None
        decoded: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", buffer=buffer, **scale)
    except ValueError:  # damaged, or only untidy
        return None
    return decoded


def crop_and_resize(image: np.ndarray, image_size: int) -> np.ndarray:
    """Cut the middle square out of uint8 (H, W, 3) and resize it: uint8 (S, S, 3), an array of its own."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    cv2 = opencv()
    # bilinear reads 2 x 2 pixels, which leaves none out up to a factor of 2
    method = cv2.INTER_AREA if side > 2 * image_size else cv2.INTER_LINEAR
    return square.copy() if side == image_size else cv2.resize(square, (image_size, image_size), interpolation=method)


def turn(image: np.ndarray, content: bytes) -> np.ndarray:
    """Rotate or mirror uint8 (H, W, 3) as the JPEG's EXIF says."""
    if b"Exif\0\0" not in content[:65536]:
        return image
    with Image.open(io.BytesIO(content)) as opened:
        orientation = opened.getexif().get(ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def to_planes(image: np.ndarray, out: np.ndarray) -> None:
    """Write uint8 (H, W, 3) into uint8 (3, H, W), as networks read it."""
    opencv().split(np.ascontiguousarray(image), list(out))


@cache
def opencv() -> ModuleType:
    """OpenCV without threads of its own: the loader's threads keep all cores busy already."""
    import cv2

    cv2.setNumThreads(1)
    return cv2
