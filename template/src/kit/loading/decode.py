"""Image files to RGB arrays: JPEG by libjpeg-turbo at a reduced scale, everything else by Pillow."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.kit.config import UserError
from src.kit.loading.jpeg import MAX_PIXELS, crop_and_resize, read_jpeg, turn


def decode(source: Path | bytes, image_size: int) -> np.ndarray:
    """Decode, rotate as EXIF says, resize the short side to `image_size` and crop the centre: uint8 (S, S, 3).

    A JPEG costs little more than undoing its Huffman code: it is decoded at 1/2, 3/8, 1/4 or 1/8 of its size where that
    suffices, in a buffer that is used again, without the interpreter's lock. On photos each value differs from a full
    decode with an antialiased resize by 3 of 255 in the mean, as it would if the crop were moved by half a pixel.

    Args:
        source: a file, or what a file holds.

    Raises:
        UserError: the file is missing, damaged, no image, or has more than `MAX_PIXELS` pixels.
    """
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        image = read_jpeg(content, image_size)
        if image is None:
            with open_image(content) as opened:
                opened.draft(None, (image_size, image_size))  # JPEG only: decodes at 1/2, 1/4 or 1/8 of the size
                ImageOps.exif_transpose(opened, in_place=True)
                square = ImageOps.fit(to_eight_bits(opened), (image_size, image_size), Image.Resampling.BILINEAR)
                return np.asarray(square.convert("RGB"))
        # the middle of a rotated image is the rotated middle, and the smaller one is turned faster
        return turn(crop_and_resize(image, image_size), content)
    except Exception as error:  # Pillow's decoders raise whatever their format's parser stumbles over
        raise undecodable(source, error) from error


def open_rgb(source: Path | bytes) -> np.ndarray:
    """Decode at full size and rotate as EXIF says: uint8 (H, W, 3), an array of its own.

    Raises:
        UserError: as `decode`.
    """
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        image = read_jpeg(content, None)
        if image is None:
            with open_image(content) as opened:
                ImageOps.exif_transpose(opened, in_place=True)
                return np.array(to_eight_bits(opened).convert("RGB"))
        return np.array(turn(image, content), order="C")
    except Exception as error:
        raise undecodable(source, error) from error


def open_image(content: bytes) -> Image.Image:
    """Open with Pillow, which reads the header only."""
    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    return image


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert to a mode of 8-bit channels that can be resized without mixing palette indices."""
    if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("1", "P", "PA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image


def undecodable(source: Path | bytes, error: Exception) -> UserError:
    """The one sentence for every file that cannot be decoded."""
    name = f"an image of {len(source)} bytes" if isinstance(source, bytes) else source
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):  # whose text is the address of a buffer in memory
        reason = "its content is no image"
    return UserError(f"Cannot decode {name}: {reason}. Replace the file or move it out of the data set.")
