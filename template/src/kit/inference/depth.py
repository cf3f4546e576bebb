"""Images of more than 8 bits or other bands than RGB: TIFF and 16-bit PNG, decoded as stored and scaled to 8 bits.

How a data set's files become arrays is a `Reading`, plain data that each checkpoint's card holds: evaluation and
prediction read new files as training did.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
from PIL import Image

from src.kit.errors import UserError

MAX_PIXELS = 178_000_000  # half a gigabyte as RGB; a file of a few bytes can claim far more
MAX_BYTES = 8 * MAX_PIXELS  # of the decoded bands
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # offset of the byte with the bits per channel
ORIENTATION = 0x0112  # the tag of TIFF and EXIF; from 5 on, width and height are swapped
OPAQUE = 0.5  # share of a fourth band's pixels that are fully clear or fully opaque if it is opacity
PART = 1 << 20  # numbers that are scaled at once
PERCENTILES = (0.1, 99.9)  # hot pixels and dust lie beyond them
SAMPLED = 64  # training images that choose the range
SAMPLED_PIXELS = 1 << 16  # of each


class Reading(TypedDict):
    """How files become uint8 arrays; `pixels` in the `input` of a card."""

    range: Any  # [low, high] that become 0 and 255, or such a pair for each band; None: what each image has
    bands: list[int] | None  # the bands that are read, counted from 0; None: RGB
    background: list[int]  # RGB under transparent pixels


PLAIN: Reading = {"range": None, "bands": None, "background": [255, 255, 255]}


class BandsError(UserError):
    """The file is sound, but `data.bands` does not say which of its bands to read, or names others."""


class Stored(NamedTuple):
    """An image as its file has it, rotated as EXIF says."""

    pixels: np.ndarray  # (H, W, C) of any number type
    opacity: bool = False  # whether the last channel says how opaque a pixel is


def read_settings(data: Mapping[str, Any]) -> Reading:
    """The `Reading` of a configuration's `data`; without a range if that is chosen by the training split or the image.

    Raises:
        UserError: bands, range or background have other values than the keys' descriptions say.
    """
    limits, bands, background = (data.get(key) for key in ("range", "bands", "background"))
    limits = None if limits is None or isinstance(limits, str) else to_list(limits)
    bands = None if bands is None else to_list(bands)
    ground = PLAIN["background"] if background is None else to_list(background)
    if bands is not None and not all(type(band) is int and band >= 0 for band in bands):
        raise UserError(f"data.bands={bands} must be a list of bands, counted from 0, such as [0, 1, 2, 3].")
    if len(ground) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in ground):
        raise UserError(f"data.background={ground} must be red, green and blue from 0 to 255, such as [255, 255, 255].")
    if limits is not None and not is_range(limits, 1 if bands is None else len(bands)):
        raise UserError(
            f"data.range={limits} must be auto, file, or the values that become black and white, such as [0, 4095], "
            "or such a pair for each of data.bands."
        )
    return {"range": limits, "bands": bands, "background": ground}


def is_range(limits: Any, bands: int) -> bool:
    """Whether this is a pair low < high, or such a pair for each band."""
    pairs = limits if limits and all(isinstance(pair, list) for pair in limits) else [limits]
    numbers = all(isinstance(value, int | float) for pair in pairs for value in pair)
    return len(pairs) in (1, bands) and numbers and all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs)


def to_list(values: Any) -> list[Any]:
    """Nested sequences as plain lists."""
    nested = [isinstance(value, Sequence) and not isinstance(value, str) for value in values]
    return [to_list(value) if deeper else value for value, deeper in zip(values, nested, strict=True)]


def count_channels(reading: Reading) -> int:
    """The number of channels of images that are read so."""
    return 3 if reading["bands"] is None else len(reading["bands"])


def is_tiff(content: bytes) -> bool:
    """Whether a file's content, or its start, is a TIFF."""
    return content[:4] in TIFF


def is_deep_png(content: bytes) -> bool:
    """Whether a file's content, or its start, is a PNG of 16 bits per channel."""
    return content.startswith(PNG) and content[PNG_DEPTH : PNG_DEPTH + 1] == b"\x10"


def read_stored(content: bytes, bands: Sequence[int] | None) -> Stored | None:
    """Decode a TIFF or a 16-bit PNG as stored; None for what Pillow reads as 8 bits without loss.

    Raises:
        Exception: whatever the decoders raise on damaged files.
    """
    if is_tiff(content):
        return read_tiff(content, bands)
    if is_deep_png(content):
        import cv2

        refuse_size(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big"), 8)
        with Image.open(io.BytesIO(content)) as opened:
            turn = opened.getexif().get(ORIENTATION, 1)
        pixels = in_rgb_order(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
        return Stored(turned(pixels, turn), pixels.shape[2] == 4)
    return None


def read_tiff(content: bytes, bands: Sequence[int] | None) -> Stored | None:
    """The first page, or the pages `bands` of a file with a band on each; None if Pillow reads it without loss."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages.first
        simple = page.dtype in (np.uint8, np.bool_) and page.samplesperpixel <= 4
        if simple and bands is None and (page.samplesperpixel in (1, 3) or page.photometric not in (1, 2)):
            return None
        refuse_size(page.imagewidth, page.imagelength, page.samplesperpixel * np.dtype(page.dtype or "u1").itemsize)
        pages = [page]
        if bands is not None and page.samplesperpixel == 1 and len(file.pages) > 1:
            refuse_bands(bands, len(file.pages))
            pages = [file.pages[band] for band in range(max(bands) + 1)]
        turn = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
        try:
            pixels = np.concatenate([page_pixels(one) for one in pages], axis=2)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if len(pages) > 1 or page.samplesperpixel > 4 or page.planarconfig != 1:
                raise UserError(f"it is compressed with {page.compression.name}: `pip install imagecodecs`") from error
            pixels, turn = read_compressed(content, simple), turn if simple else 1  # OpenCV has turned it
    return Stored(turned(pixels, turn), bool(page.extrasamples) and page.extrasamples[-1] in (1, 2))


class Header(NamedTuple):
    """What a TIFF says of its first page."""

    width: int  # as stored
    height: int
    kind: str  # of number, such as uint16
    bands: int
    orientation: int
    pages: int


def read_tiff_header(content: bytes) -> Header:
    """Read a TIFF's header; raises whatever tifffile does on damaged files."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page: Any = file.pages.first
        turn = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
        kind = str(np.dtype(page.dtype or "u1"))
        if not all(isinstance(side, int) and side > 0 for side in (page.imagewidth, page.imagelength)):
            raise ValueError("its header is damaged")
        return Header(page.imagewidth, page.imagelength, kind, page.samplesperpixel, turn, len(file.pages))


def page_pixels(page: Any) -> np.ndarray:
    """A TIFF's page (H, W, C), white as its largest value."""
    pixels = page.asarray(maxworkers=1)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == 0 and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    return np.asarray(pixels.reshape(page.imagelength, page.imagewidth, -1))


def read_compressed(content: bytes, simple: bool) -> np.ndarray:
    """A TIFF of up to four bands (H, W, C) by Pillow (8 bits) or OpenCV, which bring more codecs than tifffile."""
    if simple:
        with Image.open(io.BytesIO(content)) as opened:
            pixels = np.asarray(opened)
        return pixels.reshape(*pixels.shape[:2], -1)
    import cv2

    return in_rgb_order(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))


def in_rgb_order(pixels: np.ndarray | None) -> np.ndarray:
    """OpenCV's (H, W) or BGR(A) as (H, W, C) in RGB(A) order."""
    if pixels is None:
        raise ValueError("its content is damaged")
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def resize_bands(image: np.ndarray, size: tuple[int, int], part: Any) -> np.ndarray:
    """Resize a part (x1, y1, x2, y2) of uint8 (H, W, C) to `size` = (width, height)."""
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, part))
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in image.transpose(2, 0, 1)]
    return np.stack([np.asarray(band.resize(size, Image.Resampling.BILINEAR, part)) for band in bands], axis=2)


def refuse_size(width: int, height: int, bytes_per_pixel: int) -> None:
    """Refuse what would not fit in memory, before it is decoded."""
    if width * height > MAX_PIXELS or width * height * bytes_per_pixel > MAX_BYTES:
        raise Image.DecompressionBombError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate or mirror (H, W, C) as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def refuse_bands(bands: Sequence[int], count: int) -> None:
    """Refuse to read bands that an image does not have."""
    if max(bands) >= count:
        last = f"bands 0 to {count - 1}" if count > 1 else "band 0 only"
        raise BandsError(f"it has {last}, and data.bands={list(bands)} reads band {max(bands)}")


def to_eight_bits(stored: Stored, reading: Reading) -> np.ndarray:
    """Choose the bands, scale them by the range and put RGB on the background: uint8 (H, W, C).

    Raises:
        BandsError: the image lacks one of `bands`, or it is neither grey nor RGB and `bands` is None.
    """
    pixels, bands = stored.pixels, reading["bands"]
    count = pixels.shape[2]
    if bands is not None:
        refuse_bands(bands, count)
        limits = limits_of(pixels[..., bands], reading)
        return in_parts(lambda part: scaled(part[..., bands], limits), pixels, len(bands))
    clear = count in (2, 4) and stored.opacity and is_opacity(pixels[..., -1])
    colours = pixels[..., :-1] if clear else pixels
    if colours.shape[2] not in (1, 3):
        raise BandsError(f"it has {count} bands: choose with data.bands, such as data.bands={list(range(count))}")
    limits = limits_of(colours, reading)
    ground, full = np.array(reading["background"], np.float32), full_scale(pixels)

    def convert(part: np.ndarray) -> np.ndarray:
        if not clear:
            return scaled(part, limits)
        opaque = part[..., -1:].astype(np.float32) / full
        return np.rint(scaled(part[..., :-1], limits) * opaque + ground * (1 - opaque))

    return in_parts(convert, pixels, 3)


def in_parts(convert: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, channels: int) -> np.ndarray:
    """Convert an image (H, W, C) some rows at a time, as fractions take far more memory: uint8 (H, W, channels)."""
    out = np.empty((*pixels.shape[:2], channels), np.uint8)
    rows = max(1, PART // max(1, pixels.shape[1] * pixels.shape[2]))
    for start in range(0, len(pixels), rows):
        out[start : start + rows] = convert(pixels[start : start + rows])
    return out


def limits_of(pixels: np.ndarray, reading: Reading) -> Any:
    """The range of `reading`, or else the image's own, unless it has 8 bits."""
    own = reading["range"] is None and pixels.dtype not in (np.uint8, np.bool_)
    return choose_range(pixels) if own else reading["range"]


def full_scale(pixels: np.ndarray) -> float:
    """The value of a fully opaque pixel."""
    return float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0


def is_opacity(band: np.ndarray) -> bool:
    """Whether a fourth band looks like opacity. Many programs call any fourth band so, such as near infrared."""
    full = full_scale(band)
    return bool(band.max() == full and np.mean((band == 0) | (band == full)) >= OPAQUE)


def scaled(pixels: np.ndarray, limits: Any) -> np.ndarray:
    """Map `limits`, a pair or a pair for each channel, to 0 and 255: uint8 (H, W, C). 8 bits stay as they are.

    What is no number becomes 0.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels * np.uint8(255)
    low, high = np.array(limits, np.float32).T
    values = (pixels.astype(np.float32) - low) * (np.float32(255) / np.maximum(high - low, np.float32(1e-30)))
    return np.rint(np.nan_to_num(values, nan=0.0).clip(0, 255)).astype(np.uint8)


def choose_range(values: np.ndarray) -> list[float]:
    """[low, high] of values of any shape and type: the bits that they use, or percentiles if they leave most unused.

    12 bits in 16 give [0, 4095], fractions [0, 1]; anything else, such as a dim or signed image, its percentiles.
    """
    values = values if values.dtype.kind in "ui" else values[np.isfinite(values)]
    if not values.size:
        return [0.0, 1.0]
    least, most = float(values.min()), float(values.max())
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    top = 1.0 if values.dtype.kind == "f" and most <= 1 else 2.0 ** np.ceil(np.log2(max(most, 255.0) + 1)) - 1
    if least >= 0 and (low == high or (low <= top / 4 and high >= top / 2)):
        return [0.0, float(top)]
    return [low, high if high > low else low + 1]


class Files(Protocol):
    """Images in files, as data sets have them."""

    def __len__(self) -> int: ...

    def sources(self, indices: np.ndarray) -> Sequence[Path | bytes]:
        """The files, or their contents, of these images."""
        ...


def measure_range(images: Files, bands: Sequence[int] | None) -> list[Any] | None:
    """Choose one range for a data set from some of its training images; None if all of those have 8 bits.

    Args:
        images: the training split; `SAMPLED` images of it, evenly spaced, are looked at.
        bands: with them, the range is a pair for each band: those of a satellite differ widely. Colours share one.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), SAMPLED)).astype(int))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(partial(sample_pixels, bands=bands), images.sources(chosen))
        samples = [sample for sample in found if sample is not None]
    if not samples:
        return None
    if bands is None:
        return choose_range(np.concatenate([sample.ravel() for sample in samples]))
    whole = np.concatenate(samples)
    return [choose_range(whole[:, number]) for number in range(len(bands))]


def sample_pixels(source: Path | bytes, bands: Sequence[int] | None) -> np.ndarray | None:
    """Some pixels (N, C) of an image of more than 8 bits; None for others and for what cannot be read."""
    try:
        content = source if isinstance(source, bytes) else read_deep_file(source)
        stored = read_stored(content, bands)
        if stored is None or stored.pixels.dtype in (np.uint8, np.bool_):
            return None
        pixels = stored.pixels.reshape(-1, stored.pixels.shape[2])
        if bands is not None:
            pixels = pixels[:, bands]
        elif stored.opacity:
            pixels = pixels[:, :-1]
    except Exception:  # a file that cannot be read is reported when it is to be trained on
        return None
    step = max(1, len(pixels) // SAMPLED_PIXELS)
    largest = pixels[pixels.max(axis=1).argmax()][None]  # says how many bits are used
    return np.concatenate([pixels[::step], largest])


def read_deep_file(path: Path) -> bytes:
    """A file's content, or only its start if that shows 8 bits."""
    with path.open("rb") as file:
        start = file.read(PNG_DEPTH + 1)
        return start + file.read() if is_tiff(start) or is_deep_png(start) else start
