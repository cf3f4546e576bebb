"""Decode image files to uint8 arrays, resize and normalise them.

JPEGs go through libjpeg-turbo, at a reduced scale and without the interpreter's lock; images of more than 8 bits as
`depth` says; everything else through Pillow. Where simplejpeg or OpenCV is missing, Pillow decodes JPEGs too: values
then differ as `decode` says.
"""

import io
import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.kit.errors import UserError
from src.kit.inference.depth import (
    MAX_PIXELS,
    ORIENTATION,
    PLAIN,
    BandsError,
    Reading,
    Stored,
    read_stored,
    to_eight_bits,
    turned,
)

MIN_SCALE = 0.95  # a JPEG may be decoded at a scale that gives this share of the wanted size, and then enlarged
KEPT_BYTES = 16 << 20  # size of each thread's buffer
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"
buffers = threading.local()  # mapping new memory for each image takes as long as resizing it


def decode(source: Path | bytes, image_size: int, reading: Reading = PLAIN) -> np.ndarray:
    """Decode, rotate as EXIF says, resize the short side to `image_size` and crop the centre: uint8 (S, S, C).

    JPEGs are decoded at 1/2, 3/8, 1/4 or 1/8 of their size if that suffices, into a reused buffer and without the
    interpreter's lock, which costs little more than undoing the Huffman code. On photos each value differs from a full
    decode with an antialiased resize by 3 of 255 on average, as much as shifting the crop by half a pixel would.

    Args:
        source: a file, or a file's content.
        reading: bands, range and background, as training stored them; RGB (C = 3) unless it chooses bands.

    Raises:
        UserError: the file is missing, damaged, not an image, or has more than `MAX_PIXELS` pixels.
        BandsError: it has other bands than `reading` says.
    """
    try:
        content = source if isinstance(source, bytes) else read_file(source)
        image = decode_jpeg(content, image_size) if reading["bands"] is None else None
        if image is not None:  # cropping and rotating commute, and rotating the smaller image is faster
            return apply_orientation(crop_and_resize(image, image_size), content)
        stored = read_stored(content, reading["bands"])
        if stored is None:
            with open_image(content) as opened:
                if not keeps_numbers(opened, reading):
                    opened.draft(None, (image_size, image_size))  # JPEG only: decodes at 1/2, 1/4 or 1/8 of the size
                    ImageOps.exif_transpose(opened, in_place=True)
                    return np.asarray(flatten(fit(without_palette(opened), image_size), reading["background"]))
                stored = read_numbers(opened)
        bands = to_eight_bits(stored, reading)
        if bands.shape[2] == 3:
            return np.asarray(fit(Image.fromarray(bands), image_size))
        planes = [np.asarray(fit(Image.fromarray(band), image_size)) for band in bands.transpose(2, 0, 1)]
        return np.stack(planes, axis=2)
    except Exception as error:  # Pillow's decoders raise whatever their format's parser stumbles over
        raise decoding_error(source, error) from error


def open_rgb(source: Path | bytes, reading: Reading = PLAIN) -> np.ndarray:
    """Decode at full size and rotate as EXIF says: uint8 (H, W, C), a new array; RGB unless `reading` chooses bands.

    Raises:
        UserError, BandsError: as `decode`.
    """
    try:
        content = source if isinstance(source, bytes) else read_file(source)
        image = decode_jpeg(content, None) if reading["bands"] is None else None
        if image is not None:
            return np.array(apply_orientation(image, content), order="C")
        stored = read_stored(content, reading["bands"])
        if stored is None:
            with open_image(content) as opened:
                if not keeps_numbers(opened, reading):
                    ImageOps.exif_transpose(opened, in_place=True)
                    return np.array(flatten(opened, reading["background"]))
                stored = read_numbers(opened)
        return np.array(to_eight_bits(stored, reading), order="C")
    except Exception as error:
        raise decoding_error(source, error) from error


def read_file(path: Path) -> bytes:
    """What `path.read_bytes` returns or raises, with 4 system calls instead of 9.

    Each lets go of the interpreter's lock: several threads spend longer on handing it over than on small images.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # Windows reads text otherwise
        try:
            size = os.fstat(file).st_size
            content = os.read(file, size)
        finally:
            os.close(file)
    except OSError:  # of a folder, it doesn't name the path
        return path.read_bytes()
    return content if 0 < len(content) == size else path.read_bytes()


def fit(image: Image.Image, image_size: int) -> Image.Image:
    """Crop the central square and resize it."""
    return ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)


def keeps_numbers(image: Image.Image, reading: Reading) -> bool:
    """Whether an image that Pillow opened is read band by band, or in its range."""
    return reading["bands"] is not None or image.mode[0] in "IF"


def read_numbers(image: Image.Image) -> Stored:
    """An image that Pillow opened as it is stored, rotated as EXIF says."""
    ImageOps.exif_transpose(image, in_place=True)
    pixels = np.asarray(without_palette(image))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return Stored(pixels, image.mode in ("LA", "RGBA"))


def open_image(content: bytes) -> Image.Image:
    """Open with Pillow, which reads the header only."""
    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image


def without_palette(image: Image.Image) -> Image.Image:
    """Replace palette indices by colours, so that resizing doesn't mix indices, and a transparent colour by opacity."""
    if image.mode in ("1", "P", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image


def flatten(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """Convert an image of 8 bits to RGB, with the background where it is transparent."""
    image = without_palette(image)
    if image.mode not in ("RGBA", "LA", "La", "RGBa"):
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def decoding_error(source: Path | bytes, error: Exception) -> UserError:
    """Say in one sentence which file can't be decoded and why."""
    name = f"an image of {len(source)} bytes" if isinstance(source, bytes) else source
    if isinstance(error, BandsError):
        return BandsError(f"Cannot read {name}: {error}.")
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # whose text is a memory address
        reason = "its content is no image"
    return UserError(f"Cannot decode {name}: {reason}. Replace it or leave it out.")


def decode_jpeg(content: bytes, image_size: int | None) -> np.ndarray | None:
    """Decode a JPEG to uint8 (H, W, 3), valid until this thread's next call; None if Pillow should try.

    With `image_size`, the result may have any size whose short side is at least `MIN_SCALE` times as long.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        import simplejpeg

        import_opencv()
    except ModuleNotFoundError:  # in a small serving image, Pillow decodes everything
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
            return None
        # without min_factor=2 it would pick 7/8 or 5/8, which have no vector instructions
        least = round(MIN_SCALE * image_size) if image_size else min(height, width)
        scale = {"min_height": least, "min_width": least, "min_factor": 2} if min(height, width) >= 2 * least else {}
        if not hasattr(buffers, "jpeg"):
            buffers.jpeg = np.empty(KEPT_BYTES, np.uint8)
        whole = height == width == image_size  # nothing to crop or resize: an array of its own saves a copy
        buffer = None if whole or 3 * height * width > KEPT_BYTES else buffers.jpeg
        decoded: np.ndarray = simplejpeg.decode_jpeg(content, "RGB", buffer=buffer, **scale)
    except ValueError:  # damaged, or only sloppily written
        return None
    return decoded


def crop_and_resize(image: np.ndarray, image_size: int) -> np.ndarray:
    """Crop the central square of uint8 (H, W, 3) and resize it: uint8 (S, S, 3), a new array."""
    if image.shape[:2] == (image_size, image_size) and image.flags.owndata:  # new already
        return image
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    cv2 = import_opencv()
    # bilinear reads 2 x 2 pixels, so it skips none up to a factor of 2
    method = cv2.INTER_AREA if side > 2 * image_size else cv2.INTER_LINEAR
    return square.copy() if side == image_size else cv2.resize(square, (image_size, image_size), interpolation=method)


def apply_orientation(image: np.ndarray, content: bytes) -> np.ndarray:
    """Rotate or mirror uint8 (H, W, 3) as the JPEG's EXIF says."""
    if b"Exif\0\0" not in content[:65536]:
        return image
    with Image.open(io.BytesIO(content)) as opened:
        orientation = opened.getexif().get(ORIENTATION, 1)
    return turned(image, orientation)


def to_planes(image: np.ndarray, out: np.ndarray) -> None:
    """Write uint8 (H, W, C) into uint8 (C, H, W), the layout that networks read."""
    import_opencv().split(np.ascontiguousarray(image), list(out))


@cache
def import_opencv() -> ModuleType:
    """Import OpenCV and turn off its threads: the loader's own keep all cores busy."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def normalize(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """uint8 (B, C, H, W) -> float32 (B, C, H, W), a new array: `(x / 255 - mean) / std` for each channel."""
    scale = np.float32(1) / (np.float32(255) * np.asarray(std, np.float32))
    offset = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    out = np.multiply(images, scale[:, None, None], dtype=np.float32, order="C")
    out -= offset[:, None, None]
    return out


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (B, C, H, W) to `size` = (height, width): bilinear, averaging when it shrinks."""
    if images.shape[2:] == size:
        return images
    out = np.empty((*images.shape[:2], *size), np.uint8)
    for before, after in zip(images.reshape(-1, *images.shape[2:]), out.reshape(-1, *size), strict=True):
        after[:] = Image.fromarray(before).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return out


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Convert uint8 (B, H, W, 1 or 3) to 1 or 3 channels: repeat grey, or turn colour into its luma."""
    if images.shape[3] == channels:
        return images
    return np.repeat(images, channels, axis=3) if channels == 3 else np.rint(images @ LUMA).astype(np.uint8)[..., None]
