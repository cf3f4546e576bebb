"""Each thing that can be wrong with an image file is found on a file that shows it."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.kit.checks import KINDS
from src.kit.checks import images as checked
from src.kit.checks.images import Facts, inspect, inspect_files


def photo(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth random picture, as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def kinds(facts: Facts) -> set[str]:
    found = {kind for kind, _ in facts.problems}
    assert found <= KINDS.keys()
    return found


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **options)
    return target.getvalue()


def test_good_images_have_no_problems_and_their_size(tmp_path):
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        path = tmp_path / f"image{suffix}"
        photo().save(path)
        facts = inspect(str(path))
        assert (facts.problems, facts.width, facts.height, facts.mode) == ((), 64, 48, "RGB"), suffix
        assert facts.size == path.stat().st_size


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".gif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.9])
def test_truncated_files_are_unreadable(tmp_path, suffix, share):
    path = tmp_path / f"image{suffix}"
    photo(256, 256).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert kinds(inspect(str(path))) & {"unreadable", "damaged"}, inspect(str(path))
    if suffix != ".gif":  # Pillow shows what there is of a GIF
        assert "unreadable" in kinds(inspect(str(path)))


def test_text_with_an_image_name_is_unreadable_and_so_is_a_missing_file(tmp_path):
    path = tmp_path / "image.png"
    path.write_text("404 Not Found")
    assert inspect(str(path)).problems == (("unreadable", "It cannot be decoded: its content is no image."),)
    assert kinds(inspect(str(tmp_path / "nowhere.png"))) == {"unreadable"}
    assert kinds(inspect(str(tmp_path))) == {"unreadable"}


def test_damage_in_the_middle_that_decoders_pass_over_is_reported(tmp_path):
    path = tmp_path / "image.jpg"
    content = bytearray(encoded(photo(256, 256), "JPEG"))
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    Image.open(path).load()  # Pillow says nothing
    assert kinds(inspect(str(path))) == {"damaged"}
    path = tmp_path / "image.png"
    content = bytearray(encoded(photo(), "PNG", pnginfo=None))
    content[29] ^= 1  # in the checksum of the header
    path.write_bytes(content)
    assert kinds(inspect(str(path))) & {"damaged", "unreadable"}


def test_a_decompression_bomb_is_refused_without_being_decoded(tmp_path):
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    path = tmp_path / "bomb.png"
    for side in (14_000, 60_000, 2**31 - 1):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        )
        assert kinds(inspect(str(path))) == {"bomb"}, side


def test_a_huge_file_is_refused_without_being_read(tmp_path, monkeypatch):
    path = tmp_path / "image.bmp"
    photo().save(path)
    monkeypatch.setattr(checked, "MAX_BYTES", 1_000)
    assert kinds(inspect(str(path))) == {"bomb"}


def test_content_of_another_format_than_the_name_says(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photo(), "PNG"))
    assert inspect(str(path)).problems == (("wrong_extension", "The extension is .jpg, the content is PNG."),)
    path.write_bytes(encoded(photo(), "TIFF"))
    assert kinds(inspect(str(path))) == {"wrong_extension"}


@pytest.mark.parametrize(
    ("mode", "format", "kind"),
    [
        ("CMYK", "JPEG", "cmyk"),
        ("P", "PNG", "palette"),
        ("1", "PNG", "palette"),
        ("L", "JPEG", "grey"),
        ("RGBA", "PNG", "alpha"),
        ("LA", "PNG", "alpha"),
        ("RGBA", "WEBP", "alpha"),
    ],
)
def test_odd_modes(tmp_path, mode, format, kind):
    path = tmp_path / f"image.{ {'JPEG': 'jpg'}.get(format, format.lower()) }"
    image = photo().convert(mode)
    if "A" in mode:
        image.putpixel((3, 3), (9,) * (len(mode) - 1) + (0,))
    path.write_bytes(encoded(image, format))
    facts = inspect(str(path))
    assert kind in kinds(facts)
    assert "unreadable" not in kinds(facts)
    assert len(facts.thumb) == 81


def test_sixteen_bits_in_grey_and_in_colour(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(path)
    assert kinds(inspect(str(path))) == {"sixteen_bit"}
    assert set(inspect(str(path)).thumb) == {40_000 >> 8}

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = (b"\0" + bytes(6 * 8)) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert kinds(inspect(str(path))) == {"sixteen_bit"}


def test_exif_rotation_swaps_the_shown_size(tmp_path):
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(64, 48).save(path, exif=exif)
    facts = inspect(str(path))
    assert kinds(facts) == {"rotated"}
    assert (facts.orientation, facts.shown) == (6, (48, 64))
    exif[0x0112] = 1
    photo(64, 48).save(path, exif=exif)
    assert inspect(str(path)).problems == ()


def test_animations(tmp_path):
    path = tmp_path / "image.gif"
    photo().save(path, save_all=True, append_images=[photo(seed=1), photo(seed=2)])
    assert ("animated", "It has 3 frames.") in inspect(str(path)).problems


def test_the_thumbnail_of_a_jpeg_is_that_of_its_pixels(tmp_path):
    """It is computed from an eighth of the pixels, whose last ones lie half outside the image."""
    path, twin = tmp_path / "image.jpg", tmp_path / "image.bmp"
    for size in ((640, 425), (333, 217), (50, 31), (11, 300)):
        photo(*size).save(path, quality=95)
        Image.open(path).save(twin)
        one, other = (np.frombuffer(inspect(str(file)).thumb, np.uint8).astype(int) for file in (path, twin))
        assert np.abs(one - other).max() <= 4, size


def test_many_files_keep_their_order(tmp_path):
    paths = []
    for number in range(300):
        path = tmp_path / f"{number}.png"
        Image.new("L", (number + 1, 5)).save(path)
        paths.append(str(path))
    assert [facts.width for facts in inspect_files(paths, 4)] == list(range(1, 301))
    assert inspect_files([], 4) == []


SEEDS = {
    ".jpg": encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    ".png": encoded(photo().convert("P"), "PNG"),
    ".gif": encoded(photo(), "GIF", save_all=True, append_images=[photo(seed=1)]),
    ".bmp": encoded(photo(), "BMP"),
    ".webp": encoded(photo(), "WEBP"),
}


@settings(max_examples=400, deadline=None)
@given(
    suffix=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    length=st.floats(0.2, 1.0),
)
def test_no_bytes_make_it_fail(tmp_path_factory, suffix, changes, length):
    content = bytearray(SEEDS[suffix])
    for place, new in changes:
        start = int(place * (len(content) - 1))
        content[start : start + len(new)] = new
    path = Path(tmp_path_factory.getbasetemp()) / f"fuzz{suffix}"
    path.write_bytes(content[: int(length * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = inspect(str(path))
    assert kinds(facts) or len(facts.thumb) == 81
