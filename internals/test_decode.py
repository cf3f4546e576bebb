"""Decoding: the same picture as by the slow way, for photos, thumbnails, rotated, grey, CMYK and damaged JPEGs."""

import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from src.kit.errors import UserError
from src.kit.inference import decoding
from src.kit.inference.decoding import decode, open_rgb

DATA = os.environ.get("TEST_DATA_DIR")
needs_photos = pytest.mark.skipif(not DATA, reason="TEST_DATA_DIR is not set: no photos")


def encode(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", **{"quality": 95, "subsampling": 0, **options})
    return file.getvalue()


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture of large soft shapes, whose pixels hardly depend on how they are resampled."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def slow(content: bytes, size: int) -> np.ndarray:
    """Full decode by Pillow, antialiased resize, centre crop."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@needs_photos
def test_photos_are_close_to_a_full_decode_with_an_antialiased_resize():
    archive = zipfile.ZipFile(Path(str(DATA), "coco128-images.zip"))
    names = [name for name in archive.namelist() if name.endswith(".jpg")][::4]
    differences = []
    for name in names:
        content = archive.read(name)
        fast = decode(content, 224)
        assert (fast.shape, fast.dtype, fast.flags.c_contiguous) == ((224, 224, 3), np.uint8, True)
        differences.append(difference(fast, slow(content, 224)))
    assert len(names) == 64
    assert np.mean(differences) < 4
    assert max(differences) < 16


@needs_photos
def test_full_size_photos_are_those_of_pillow():
    archive = zipfile.ZipFile(Path(str(DATA), "coco128-images.zip"))
    for name in [name for name in archive.namelist() if name.endswith(".jpg")][:8]:
        content = archive.read(name)
        assert difference(open_rgb(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))) < 0.5


@pytest.mark.parametrize("width", [32, 40])
def test_an_image_of_the_wanted_size_keeps_its_pixels(width):
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, width, 3), dtype=np.uint8)
    contents = [encode(Image.fromarray(pixels)) for pixels in noise]
    decoded = [decode(content, 32) for content in contents]  # the second doesn't overwrite the first
    assert all(np.array_equal(*pair) for pair in zip(decoded, (slow(content, 32) for content in contents), strict=True))


@pytest.mark.parametrize("size", [16, 100, 224])
@pytest.mark.parametrize("shape", [(480, 640), (640, 427), (427, 640), (300, 300), (3001, 2000), (20, 30), (33, 4000)])
def test_every_scale_shows_the_same_picture(shape, size):
    content = encode(smooth(*shape))
    assert difference(decode(content, size), slow(content, size)) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(400, 600), (48, 32)])
def test_exif_rotation_is_that_of_pillow(orientation, shape):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(smooth(*shape), exif=exif)
    whole = open_rgb(content)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert difference(whole, expected) < 0.5
    assert whole.flags.c_contiguous
    assert difference(decode(content, 32), slow(content, 32)) < 5
    assert orientation == 1 or difference(decode(content, 32), slow(encode(smooth(*shape)), 32)) > 5


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"restart_marker_blocks": 4}])
def test_other_kinds_of_jpeg(options):
    content = encode(smooth(300, 500), **options)
    assert difference(decode(content, 64), slow(content, 64)) < 5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(mode):
    content = encode(smooth(200, 300).convert(mode))
    assert difference(decode(content, 64), slow(content, 64)) < 5
    assert difference(open_rgb(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))) < 0.5


def test_an_untidy_jpeg_is_decoded_by_pillow():
    content = encode(smooth(200, 300))
    assert decoding.decode_jpeg(content[:2] + b"\x00\x00" + content[2:], 64) is None
    padded = content[:-2] + b"\0" * 10 + content[-2:]
    assert difference(decode(padded, 64), slow(content, 64)) < 5


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_jpeg_is_refused(tmp_path, kept):
    content = encode(smooth(200, 300, seed=1))
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(len(content) * kept)])
    for read in (lambda: decode(path, 64), lambda: open_rgb(path)):
        with pytest.raises(UserError, match=r"Cannot decode .*cut\.jpg: .+ Replace it"):
            read()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("missing.jpg", "folder.jpg"):
        with pytest.raises(UserError, match=rf"Cannot decode .*{name}: \[Errno \d+\] .*{name}'\. Replace it"):
            decode(tmp_path / name, 64)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="Linux's own files")
def test_a_file_of_unknown_size_is_read_to_its_end():
    assert Path("/proc/version").stat().st_size == 0
    assert decoding.read_file(Path("/proc/version")).startswith(b"Linux")


def test_bytes_are_named_by_their_number():
    with pytest.raises(UserError, match="Cannot decode an image of 5 bytes"):
        decode(b"12345", 8)


def test_what_is_no_image_is_called_that(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("not an image", "utf-8")
    for read in (lambda: decode(path, 64), lambda: open_rgb(path)):
        with pytest.raises(UserError, match=r"Cannot decode .*a\.jpg: its content is no image\. Replace it or"):
            read()


def test_a_jpeg_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 50_000)
    path = tmp_path / "bomb.jpg"
    path.write_bytes(encode(smooth(200, 300)))
    with pytest.raises(UserError, match=r"bomb.jpg: 300 x 200 pixels, more than 50,000"):
        decode(path, 16)
    with pytest.raises(UserError, match="more than 50,000"):
        open_rgb(path)


def test_threads_do_not_share_their_buffers(monkeypatch):
    contents = [encode(smooth(240 + 16 * number, 320, seed=number)) for number in range(12)]
    expected = [decode(content, 48) for content in contents]
    with ThreadPoolExecutor(6) as pool:
        decoded = list(pool.map(lambda number: decode(contents[number % 12], 48), range(240)))
    assert all(np.array_equal(image, expected[number % 12]) for number, image in enumerate(decoded))
    monkeypatch.setattr(decoding, "KEPT_BYTES", 0)  # as for an image larger than the buffer
    assert np.array_equal(decode(contents[0], 48), expected[0])
