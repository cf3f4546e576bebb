"""Look at one image file: read it once, decode it to the end, and say what is odd about it."""

import hashlib
import io
import os
import stat
from typing import NamedTuple

import simplejpeg
from PIL import Image

from src.kit.checks.headers import oddities, orientation
from src.kit.loading import MAX_PIXELS, to_eight_bits

MAX_BYTES = 4 * MAX_PIXELS  # no image that may be decoded is larger, even uncompressed
THUMB = 9  # width and height of the grey thumbnail in which images are compared
# what is looked for in a file; Pillow's other readers are slower to refuse, and one starts another program
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM")


class Facts(NamedTuple):
    """What is known about an image file; `problems` are pairs of a finding's kind and its sentence."""

    size: int = 0  # bytes
    digest: bytes = b""  # of the content
    format: str = ""
    mode: str = ""
    width: int = 0  # as stored
    height: int = 0
    orientation: int = 1  # 2 to 8 where EXIF turns or mirrors the picture, as the standard numbers them
    thumb: bytes = b""  # THUMB x THUMB grey pixels
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the picture as EXIF turns it."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def inspect(path: str) -> Facts:
    """Read and decode a file; whatever it holds, the answer is `Facts` and never an exception."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return Facts(problems=(("unreadable", "It is no regular file."),))
        if status.st_size > MAX_BYTES:
            return Facts(status.st_size, problems=(("bomb", f"The file has {status.st_size:,} bytes."),))
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        return Facts(problems=(("unreadable", f"It cannot be read: {error.strerror}."),))
    facts = Facts(len(content), hashlib.sha256(content).digest()[:16])
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            facts = read_header(image, content, os.path.splitext(path)[1].lower(), facts)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            thumb, damage = decode(image, content)
    except Image.DecompressionBombError:  # Pillow raises it on opening, from the size in the header
        return with_problem(facts, "bomb", f"Its {len(content):,} bytes claim more than {MAX_PIXELS:,} pixels.")
    except Exception as error:  # Pillow's decoders raise whatever their format's parser stumbles over
        return with_problem(facts, "unreadable", f"It cannot be decoded: {reason(error, len(content))}.")
    facts = facts._replace(thumb=thumb)
    return with_problem(facts, "damaged", f"The decoder says: {damage}.") if damage else facts


def read_header(image: Image.Image, content: bytes, suffix: str, facts: Facts) -> Facts:
    """Fill in what can be known without decoding."""
    facts = facts._replace(format=image.format or "", mode=image.mode, width=image.width, height=image.height)
    facts = facts._replace(problems=tuple(oddities(image, content, suffix)))
    turn = orientation(image) if "exif" in image.info or image.format in ("MPO", "TIFF") else 1
    if turn == 1:
        return facts
    return with_problem(
        facts._replace(orientation=turn), "rotated", f"EXIF orientation {turn}: it is not shown as it is stored."
    )


def with_problem(facts: Facts, kind: str, sentence: str) -> Facts:
    """The facts with one problem more."""
    return facts._replace(problems=(*facts.problems, (kind, sentence)))


def decode(image: Image.Image, content: bytes) -> tuple[bytes, str]:
    """Decode to the last row: the grey thumbnail, and what a strict decoder complains about where another copes."""
    damage = ""
    if image.format in ("JPEG", "MPO"):
        try:  # every coefficient is read, but only an eighth of the pixels is computed
            grey = simplejpeg.decode_jpeg(content, "GRAY", min_height=THUMB, min_width=THUMB)
            eighths = round(8 * grey.shape[1] / image.width)  # the scale; the last pixel may be half outside the image
            return small(Image.fromarray(grey[..., 0]), (image.width * eighths / 8, image.height * eighths / 8)), ""
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
    return small(image, image.size), damage


def small(image: Image.Image, extent: tuple[float, float]) -> bytes:
    """The image from its top left corner to `extent` (width, height) in THUMB x THUMB grey pixels."""
    grey = to_eight_bits(image).convert("L")
    return grey.resize((THUMB, THUMB), Image.Resampling.BILINEAR, box=(0, 0, *extent)).tobytes()


def reason(error: Exception, size: int) -> str:
    """An error as the end of a sentence, without the address of the buffer that Pillow puts in it."""
    if size == 0:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "its content is no image"
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
