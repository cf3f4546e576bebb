"""What an image's header tells: another format than its name, an odd mode, a rotation."""

from typing import Any

from PIL import Image

EXPECTED = {
    ".bmp": ("BMP", "DIB"),
    ".gif": ("GIF",),
    ".jpeg": ("JPEG", "MPO"),
    ".jpg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
}
ORIENTATION = 0x0112  # the EXIF tag
DEPTH_OF_PNG = 24  # the byte that holds the bits of a channel


def oddities(image: Image.Image, content: bytes, suffix: str) -> list[tuple[str, str]]:
    """What the header says: another format than the name, an odd mode, several frames."""
    found = []
    if image.format not in EXPECTED.get(suffix, (image.format,)):
        found.append(("wrong_extension", f"The name says {suffix}, the content is {image.format}."))
    if image.mode == "CMYK":
        found.append(("cmyk", "Its mode is CMYK."))
    if image.mode[0] in "IF" or (image.format == "PNG" and content[DEPTH_OF_PNG] == 16):
        found.append(("sixteen_bit", f"Its mode is {image.mode} with more than 8 bits a channel."))
    if image.mode in ("P", "PA", "1"):
        found.append(
            ("palette", f"Its mode is {image.mode}: indices into {'two' if image.mode == '1' else 'its'} colours.")
        )
    if image.mode in ("L", "LA"):
        found.append(("grey", "It has one channel."))
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        found.append(("alpha", "It has a channel of transparency."))
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's second picture is no film
        found.append(("animated", f"It has {getattr(image, 'n_frames', 2)} frames."))
    return found


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where it is absent or damaged."""
    try:
        value: Any = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block harms nothing else
        return 1
    return value if value in range(1, 9) else 1
