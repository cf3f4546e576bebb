"""Inspect image files: read each once, decode it completely, and report what is odd."""

import hashlib
import io
import os
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import simplejpeg
from omegaconf import DictConfig
from PIL import Image

from src.kit.checks.findings import Facts, Finding, Source
from src.kit.errors import UserError
from src.kit.loading import (
    MAX_PIXELS,
    ORIENTATION,
    PLAIN,
    BandsError,
    FileImages,
    Reading,
    flatten,
    is_deep_png,
    is_tiff,
    measure_range,
    open_rgb,
    read_settings,
    read_tiff_header,
)
from src.kit.run import REDRAW_S, open_bar

MAX_BYTES = 4 * MAX_PIXELS  # larger files can't be images within MAX_PIXELS, even uncompressed
THUMB = 9  # width and height of the grey thumbnail used to compare images
ENLARGED = 8  # report images that would be enlarged by more than this factor
CHUNK = 64  # images per task of the thread pool
# Pillow's other readers are slower to refuse a file, and one starts another program
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM")
EXPECTED = {
    ".bmp": ("BMP", "DIB"),
    ".gif": ("GIF",),
    ".jpeg": ("JPEG", "MPO"),
    ".jpg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".webp": ("WEBP",),
}


def choose_reading(cfg: DictConfig, source: Source) -> Reading:
    """How training reads the files; `data.range=auto` is chosen from those of the training split."""
    reading = read_settings(cfg.data)
    if cfg.data.get("range") == "auto":
        paths = [source.root / entry.path for entry in source.entries if entry.split in ("train", "")]
        reading["range"] = measure_range(FileImages(paths, 1), reading["bands"])
    return reading


def inspect_files(paths: Sequence[str], workers: int, reading: Reading = PLAIN) -> list[Facts]:
    """Inspect files in order, with a progress bar on a terminal.

    Threads suffice: reading, hashing and decoding release the interpreter lock, which small images hold for about
    0.05 ms each and photos for a thirtieth of their time.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    facts: list[Facts] = []
    bar = open_bar(sys.stderr) if sys.stderr.isatty() else None
    started = next_draw = time.perf_counter()
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            for part in pool.map(lambda chunk: [inspect(path, reading) for path in chunk], chunks):
                facts += part
                if bar is not None and ((now := time.perf_counter()) >= next_draw or len(facts) == len(paths)):
                    next_draw = now + REDRAW_S
                    speed = f"{len(facts) / (now - started):,.0f} images/s"
                    bar.update(bar.task_ids[0], description="checking", values=speed)
                    bar.update(bar.task_ids[0], completed=len(facts), total=len(paths), refresh=True)
    finally:
        if bar is not None:
            bar.stop()
    return facts


def inspect(path: str, reading: Reading = PLAIN) -> Facts:
    """Read and decode a file as training does. Never raises: whatever is wrong with it is in `Facts.problems`."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return Facts(problems=(("unreadable", "It is not a regular file."),))
        if status.st_size > MAX_BYTES:
            return Facts(status.st_size, problems=(("bomb", f"The file has {status.st_size:,} bytes."),))
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        return Facts(problems=(("unreadable", f"It cannot be read: {error.strerror}."),))
    facts = Facts(len(content), hashlib.sha256(content).digest()[:16])
    try:
        facts, thumb, damage = look_into(content, os.path.splitext(path)[1].lower(), facts, reading)
    except Image.DecompressionBombError:  # Pillow raises it on opening, from the size in the header
        return with_problem(facts, "bomb", f"Its {len(content):,} bytes claim more than {MAX_PIXELS:,} pixels.")
    except BandsError as error:
        cause = str(error.__cause__ or error)
        return with_problem(facts, "bands", f"{cause[:1].upper()}{cause[1:]}.")
    except Exception as error:  # Pillow's decoders raise whatever their format's parser stumbles over
        return with_problem(facts, "unreadable", f"It cannot be decoded: {reason(error, len(content))}.")
    facts = facts._replace(thumb=thumb)
    return with_problem(facts, "damaged", f"The decoder reports: {damage}.") if damage else facts


def look_into(content: bytes, suffix: str, facts: Facts, reading: Reading) -> tuple[Facts, bytes, str]:
    """Header, thumbnail, and what a strict decoder reports that a lenient one accepts."""
    if is_tiff(content):
        facts = read_tiff_facts(content, suffix, facts)
        return facts, training_thumbnail(content, reading), ""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        facts = read_header(image, content, suffix, facts)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        return facts, *decode(image, content, reading)


def training_thumbnail(content: bytes, reading: Reading) -> bytes:
    """The grey thumbnail of an image as training reads it."""
    try:
        shown = open_rgb(content, reading)
    except BandsError:
        raise
    except UserError as error:  # which names no file here
        raise error.__cause__ or error from error
    image = Image.fromarray(shown[..., :3] if shown.shape[2] >= 3 else shown[..., 0])
    return grey_thumbnail(image, image.size, reading)


def read_tiff_facts(content: bytes, suffix: str, facts: Facts) -> Facts:
    """Fill in what the header says; Pillow opens only some TIFFs."""
    header = read_tiff_header(content)
    if header.width * header.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    mode = f"{header.kind} x {header.bands}"
    facts = facts._replace(format="TIFF", mode=mode, width=header.width, height=header.height)
    if suffix not in (".tif", ".tiff"):
        facts = with_problem(facts, "wrong_extension", f"The extension is {suffix}, the content is TIFF.")
    if header.kind not in ("uint8", "bool"):
        facts = with_problem(facts, "sixteen_bit", f"Its values are {header.kind}.")
    if header.bands == 1:
        facts = with_problem(facts, "grey", "It has one channel.")
    if header.pages > 1:
        facts = with_problem(facts, "animated", f"It has {header.pages} pages.")
    return oriented(facts, header.orientation)


def oriented(facts: Facts, turn: int) -> Facts:
    """Note an EXIF orientation."""
    if turn not in range(2, 9):
        return facts
    facts = facts._replace(orientation=turn)
    return with_problem(facts, "rotated", f"EXIF orientation {turn}: it is shown differently than it is stored.")


def read_header(image: Image.Image, content: bytes, suffix: str, facts: Facts) -> Facts:
    """Fill in what is known without decoding."""
    facts = facts._replace(format=image.format or "", mode=image.mode, width=image.width, height=image.height)
    facts = facts._replace(problems=tuple(header_problems(image, content, suffix)))
    turn = read_orientation(image) if "exif" in image.info or image.format in ("MPO", "TIFF") else 1
    return oriented(facts, turn)


def header_problems(image: Image.Image, content: bytes, suffix: str) -> list[tuple[str, str]]:
    """What is odd about the header: a format that differs from the extension, an unusual mode, several frames."""
    found = []
    if image.format not in EXPECTED.get(suffix, (image.format,)):
        found.append(("wrong_extension", f"The extension is {suffix}, the content is {image.format}."))
    if image.mode == "CMYK":
        found.append(("cmyk", "Its mode is CMYK."))
    if image.mode[0] in "IF" or is_deep_png(content):
        found.append(("sixteen_bit", f"Its mode is {image.mode} with more than 8 bits per channel."))
    if image.mode in ("P", "PA", "1"):
        palette = "two" if image.mode == "1" else "its"
        found.append(("palette", f"Its mode is {image.mode}: indices into {palette} colours."))
    if image.mode in ("L", "LA"):
        found.append(("grey", "It has one channel."))
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        found.append(("alpha", "It has an alpha channel or a transparent colour."))
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's second picture is no film
        found.append(("animated", f"It has {getattr(image, 'n_frames', 2)} frames."))
    return found


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if it is absent or damaged."""
    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block harms nothing else
        return 1
    return value if value in range(1, 9) else 1


def with_problem(facts: Facts, kind: str, sentence: str) -> Facts:
    """Append a problem."""
    return facts._replace(problems=(*facts.problems, (kind, sentence)))


def decode(image: Image.Image, content: bytes, reading: Reading) -> tuple[bytes, str]:
    """Decode all rows. Returns the grey thumbnail, and what a strict decoder reports that a lenient one accepts."""
    damage = ""
    if image.format in ("JPEG", "MPO") and reading["bands"] is None:
        try:  # reads every coefficient, but computes only an eighth of the pixels
            grey = simplejpeg.decode_jpeg(content, "GRAY", min_height=THUMB, min_width=THUMB)
            eighths = round(8 * grey.shape[1] / image.width)  # the scale; the last pixel may be half outside the image
            extent = (image.width * eighths / 8, image.height * eighths / 8)
            return grey_thumbnail(Image.fromarray(grey[..., 0]), extent, reading), ""
        except ValueError as error:
            damage = reason(error, len(content))
        image.draft("L", (THUMB, THUMB))
    elif image.format == "PNG":
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as twin:
                twin.verify()  # the checksums, which decoding skips
        except Exception as error:
            damage = reason(error, len(content))
    image.load()
    if reading["bands"] is not None or image.mode[0] in "IF" or is_deep_png(content):
        return training_thumbnail(content, reading), damage
    return grey_thumbnail(image, image.size, reading), damage


def grey_thumbnail(image: Image.Image, extent: tuple[float, float], reading: Reading) -> bytes:
    """Shrink the image, from its top left corner to `extent` (width, height), to THUMB x THUMB grey pixels."""
    grey = flatten(image, reading["background"]).convert("L")
    return grey.resize((THUMB, THUMB), Image.Resampling.BILINEAR, box=(0, 0, *extent)).tobytes()


def reason(error: Exception, size: int) -> str:
    """An error as the end of a sentence, without the buffer's address that Pillow puts in it."""
    if size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is no image"
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def image_findings(facts: Mapping[str, Facts], image_size: int) -> list[Finding]:
    """The problems of single images. Grey images are reported only if most others are in colour."""
    kinds = Counter(kind for found in facts.values() for kind, _ in found.problems)
    usual = {"grey"} if 2 * kinds["grey"] > len(facts) else set()
    findings = []
    for path, found in facts.items():
        findings += [Finding(kind, path, sentence) for kind, sentence in found.problems if kind not in usual]
        if found.width and min(found.width, found.height) * ENLARGED < image_size:
            sentence = f"{found.width} x {found.height} pixels would become {image_size} on the short side."
            findings.append(Finding("tiny", path, sentence))
    return findings
