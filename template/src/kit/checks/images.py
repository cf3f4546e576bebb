"""Inspect image files: read each once, decode it completely, report what is odd, and find copies."""

import hashlib
import io
import os
import stat
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from src.kit.checks.findings import Entry, Facts, Finding
from src.kit.loading import MAX_PIXELS, to_eight_bits
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
    ".webp": ("WEBP",),
}
ORIENTATION = 0x0112  # the EXIF tag
PNG_DEPTH = 24  # offset of the byte with the bits per channel
# Near-duplicates differ in at most MAX_BITS of the 128 comparisons between neighbouring pixels of their thumbnails,
# and by at most MAX_LEVELS grey levels on average after subtracting each thumbnail's mean. On photos this finds 99 % of
# the copies with another size, format or JPEG quality, about half of those cropped by 2 % per side, and no false pair.
MAX_BITS = 7  # of 8 words of 16 bits: with 7 differences at least one word is equal, so sorting by words finds the pair
MAX_LEVELS = 6.0
MIN_SIDE = 32  # pixels; smaller images, such as two handwritten digits, look alike without being copies
MIN_CONTRAST = 4.0  # standard deviation in grey levels
WINDOW = 64  # images with the same word that are compared with each other
KEPT_FIRST = ("test", "val", "train", "")


def inspect_files(paths: Sequence[str], workers: int) -> list[Facts]:
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
            for part in pool.map(lambda chunk: [inspect(path) for path in chunk], chunks):
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


def inspect(path: str) -> Facts:
    """Read and decode a file. Never raises: whatever is wrong with the file is in `Facts.problems`."""
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
    return with_problem(facts, "damaged", f"The decoder reports: {damage}.") if damage else facts


def read_header(image: Image.Image, content: bytes, suffix: str, facts: Facts) -> Facts:
    """Fill in what is known without decoding."""
    facts = facts._replace(format=image.format or "", mode=image.mode, width=image.width, height=image.height)
    facts = facts._replace(problems=tuple(header_problems(image, content, suffix)))
    turn = read_orientation(image) if "exif" in image.info or image.format in ("MPO", "TIFF") else 1
    if turn == 1:
        return facts
    facts = facts._replace(orientation=turn)
    return with_problem(facts, "rotated", f"EXIF orientation {turn}: it is shown differently than it is stored.")


def header_problems(image: Image.Image, content: bytes, suffix: str) -> list[tuple[str, str]]:
    """What is odd about the header: a format that differs from the extension, an unusual mode, several frames."""
    found = []
    if image.format not in EXPECTED.get(suffix, (image.format,)):
        found.append(("wrong_extension", f"The extension is {suffix}, the content is {image.format}."))
    if image.mode == "CMYK":
        found.append(("cmyk", "Its mode is CMYK."))
    if image.mode[0] in "IF" or (image.format == "PNG" and content[PNG_DEPTH] == 16):
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


def decode(image: Image.Image, content: bytes) -> tuple[bytes, str]:
    """Decode all rows. Returns the grey thumbnail, and what a strict decoder reports that a lenient one accepts."""
    damage = ""
    if image.format in ("JPEG", "MPO"):
        try:  # reads every coefficient, but computes only an eighth of the pixels
            grey = simplejpeg.decode_jpeg(content, "GRAY", min_height=THUMB, min_width=THUMB)
            eighths = round(8 * grey.shape[1] / image.width)  # the scale; the last pixel may be half outside the image
            extent = (image.width * eighths / 8, image.height * eighths / 8)
            return grey_thumbnail(Image.fromarray(grey[..., 0]), extent), ""
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
    return grey_thumbnail(image, image.size), damage


def grey_thumbnail(image: Image.Image, extent: tuple[float, float]) -> bytes:
    """Shrink the image, from its top left corner to `extent` (width, height), to THUMB x THUMB grey pixels."""
    grey = to_eight_bits(image).convert("L")
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


def find_copies(entries: Sequence[Entry], facts: Sequence[Facts]) -> list[Finding]:
    """Report each copy once, with its original. Across splits, the image in the test split counts as the original."""
    order = sorted(range(len(entries)), key=lambda i: (KEPT_FIRST.index(entries[i].split), entries[i].path))
    first: dict[bytes, Entry] = {}
    findings: list[Finding] = []
    for i in order:
        if not facts[i].digest or facts[i].size == 0:
            continue
        copy, original = entries[i], first.setdefault(facts[i].digest, entries[i])
        if copy is original:
            continue
        if copy.split != original.split:
            sentence = f"It is identical to {original.path} in {original.split or 'no split'}."
            findings.append(Finding("leak", copy.path, sentence, original.path))
        else:
            findings.append(Finding("duplicate", copy.path, f"It is identical to {original.path}.", original.path))
        if copy.label != original.label:
            sentence = f"{copy.path} is {copy.label}, and {original.path} is {original.label}."
            findings.append(Finding("conflict", copy.path, sentence, original.path))
    copies = {finding.path for finding in findings}
    seen = [i for i in order if facts[i].thumb and min(facts[i].width, facts[i].height) >= MIN_SIDE]
    rest = [i for i in seen if entries[i].path not in copies]
    thumbs = np.frombuffer(b"".join(facts[i].thumb for i in rest), np.uint8).reshape(-1, THUMB, THUMB)
    return findings + near_copies([entries[i] for i in rest], thumbs)


def near_copies(entries: Sequence[Entry], thumbs: np.ndarray) -> list[Finding]:
    """Report each image that nearly equals an earlier one; `thumbs` is uint8 (N, 9, 9)."""
    partners: dict[tuple[int, str], int] = defaultdict(lambda: len(entries))
    for earlier, later in near_pairs(thumbs):
        kind = "near_duplicate" if entries[earlier].split == entries[later].split else "near_leak"
        partners[later, kind] = min(partners[later, kind], earlier)
    findings = []
    for (later, kind), earlier in sorted(partners.items()):
        copy, original = entries[later], entries[earlier]
        where = f" in {original.split or 'no split'}" if kind == "near_leak" else ""
        sentence = f"It looks like {original.path}{where}."
        findings.append(Finding(kind, copy.path, sentence, original.path))
    return findings


def near_pairs(thumbs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs i < j of nearly equal thumbnails uint8 (N, 9, 9); a pair may come more than once."""
    contrast = thumbs.std(axis=(1, 2)) >= MIN_CONTRAST
    numbers = np.flatnonzero(contrast)
    thumbs = thumbs[numbers]
    words = difference_hash(thumbs)
    for word in range(words.shape[1]):
        order = np.argsort(words[:, word], kind="stable")
        keys = words[order, word]
        positions = np.arange(len(order))
        for step in range(1, WINDOW):
            positions = positions[: np.searchsorted(positions, len(order) - step)]
            positions = positions[keys[positions] == keys[positions + step]]
            if len(positions) == 0:
                break
            i, j = np.sort([order[positions], order[positions + step]], axis=0)
            near = np.bitwise_count(words[i] ^ words[j]).sum(axis=1) <= MAX_BITS
            i, j = i[near], j[near]
            close = mean_difference(thumbs[i], thumbs[j]) <= MAX_LEVELS
            yield from zip(numbers[i[close]].tolist(), numbers[j[close]].tolist(), strict=True)


def difference_hash(thumbs: np.ndarray) -> np.ndarray:
    """Compare each pixel with its left and upper neighbour: (N, 9, 9) -> 128 bits as uint16 (N, 8)."""
    right = thumbs[:, :8, 1:] > thumbs[:, :8, :-1]
    down = thumbs[:, 1:, :8] > thumbs[:, :-1, :8]
    bits = np.concatenate([right.reshape(-1, 64), down.reshape(-1, 64)], axis=1)
    return np.packbits(bits, axis=1).view(np.uint16)


def mean_difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean absolute difference in grey levels between thumbnails (N, 9, 9), each less its mean: (N,)."""
    gap = left.astype(np.float32) - right
    return np.abs(gap - gap.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
