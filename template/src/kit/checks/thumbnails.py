"""Small pictures of what is wrong, as part of an HTML page."""

import base64
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFile, ImageOps

from src.kit.checks.images import FORMATS, MAX_BYTES
from src.kit.checks.issues import Box
from src.kit.loading import MAX_PIXELS, to_eight_bits

SIZE = 176  # pixels of the longer side
QUALITY = 72
FRAME = "#d55e00"
OUTSIDE = "#c9d1d9"  # what a box covers beyond the image


@contextmanager
def lenient() -> Iterator[None]:
    """Within it Pillow shows what is left of a truncated image."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def thumbnail(path: Path, box: Box | None = None) -> str:
    """The picture as a data URL, with `box` drawn in; "" where nothing can be shown. Use it within `lenient()`."""
    try:
        if not path.is_file() or os.path.getsize(path) > MAX_BYTES:
            return ""
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return ""
            size = image.size
            image.draft("RGB", (2 * SIZE, 2 * SIZE))
            ImageOps.exif_transpose(image, in_place=True)
            size = size if (image.width < image.height) == (size[0] < size[1]) else size[::-1]
            picture = frame(to_eight_bits(image), size, box)
    except Exception:  # of a damaged file there may be nothing to show, whatever its parser stumbles over
        return ""
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def frame(image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
    """Shrink (or enlarge a tiny image) to `SIZE`, on a canvas that holds the box too; `size` is what it refers to."""
    width, height = size
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if box is not None:  # at most as much again as the image on each side
        left, top = max(min(left, box[0]), -width), max(min(top, box[1]), -height)
        right, bottom = min(max(right, box[2]), 2 * width), min(max(bottom, box[3]), 2 * height)
    scale = SIZE / max(right - left, bottom - top)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    filter = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BILINEAR
    canvas = Image.new("RGB", (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))), OUTSIDE)
    picture = image.resize(shown, filter)
    clear = picture.convert("RGBA") if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") else None
    canvas.paste(picture.convert("RGB"), (round(-left * scale), round(-top * scale)), clear)
    if box is not None:
        xs, ys = (
            sorted(min(max((box[i] - start) * scale, 0.0), side - 1.0) for i in (axis, axis + 2))
            for axis, start, side in ((0, left, canvas.width), (1, top, canvas.height))
        )
        ImageDraw.Draw(canvas).rectangle((xs[0], ys[0], xs[1], ys[1]), outline=FRAME, width=2)
    return canvas
