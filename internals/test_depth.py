"""Images of more than 8 bits, other bands and transparency: the same values in training, check and checkpoint."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.checks import check
from src.kit.config import load_config
from src.kit.errors import UserError
from src.kit.inference import depth
from src.kit.inference.depth import choose_range, read_settings
from src.kit.loading import PLAIN, BandsError, decode, open_rgb
from src.kit.training import Experiment

RNG = np.random.default_rng(0)
SHADES = RNG.integers(0, 256, (24, 32)).astype(np.uint8)  # all of 0..255 occur
COLOURS = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
WIDE = {8: lambda x: x, 12: lambda x: x.astype(np.uint16) << 4 | x >> 4, 16: lambda x: x.astype(np.uint16) * 257}


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert these small images in several parts, as large ones are."""
    monkeypatch.setattr(depth, "PART", 200)


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    tifffile.imwrite(file, pixels, photometric=options.pop("photometric", "rgb" if colour else "minisblack"), **options)
    return file.getvalue()


def png(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "png", **options)
    return file.getvalue()


def deep_png(pixels: np.ndarray) -> bytes:
    import cv2

    order = [2, 1, 0, 3][: pixels.shape[2]]
    return cv2.imencode(".png", pixels[..., order])[1].tobytes()


@pytest.mark.parametrize("bits", [12, 16])
def test_more_bits_are_the_same_picture(bits):
    wide = WIDE[bits]
    for content in (png(wide(SHADES)), tiff(wide(SHADES)), tiff(wide(SHADES), compression="zlib", tile=(16, 16))):
        assert np.array_equal(open_rgb(content), np.repeat(SHADES[..., None], 3, axis=2))
    for content in (deep_png(wide(COLOURS)), tiff(wide(COLOURS)), tiff(wide(COLOURS), bigtiff=True, byteorder=">")):
        assert np.array_equal(open_rgb(content), COLOURS)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 13])
def test_every_kind_of_number_and_number_of_bands(kind, count):
    pixels = (RNG.random((9, 7, count)) * 200).astype(kind)
    chosen = {**PLAIN, "bands": list(range(count)), "range": [0, 255]}
    for content in (
        tiff(pixels if count > 1 else pixels[..., 0], photometric="minisblack", planarconfig="contig"),
        tiff(pixels.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate" if count > 1 else None),
    ):
        assert np.array_equal(open_rgb(content, chosen), np.rint(pixels).astype(np.uint8))
        assert decode(content, 4, chosen).shape == (4, 4, count)


def test_bands_on_pages_and_what_data_bands_lacks():
    pages = (RNG.random((5, 9, 7)) * 200).astype(np.uint16)
    content = tiff(pages)
    found = open_rgb(content, {**PLAIN, "bands": [4, 0], "range": [0, 255]})
    assert np.array_equal(found, pages[[4, 0]].transpose(1, 2, 0))
    with pytest.raises(BandsError, match=r"bands 0 to 4, and data.bands=\[5\] reads band 5"):
        open_rgb(content, {**PLAIN, "bands": [5]})
    near_infrared = RNG.integers(0, 64, (9, 7, 4)).astype(np.uint8)
    for pixels in (near_infrared, near_infrared.astype(np.uint16) * 60):
        content = tiff(pixels, photometric="rgb", extrasamples=["unassalpha"])
        with pytest.raises(BandsError, match=r"it has 4 bands: choose with data.bands"):
            open_rgb(content)


def test_compressed_tiffs_that_tifffile_alone_cannot_read():
    for pixels in (SHADES, WIDE[16](SHADES)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "tiff", compression="tiff_lzw")
        assert np.array_equal(open_rgb(file.getvalue())[..., 0], SHADES)
        assert np.array_equal(open_rgb(file.getvalue(), {**PLAIN, "bands": [0]})[..., 0], SHADES)


def test_a_compression_that_needs_another_package_is_named():
    content = bytearray(tiff(np.zeros((9, 9, 5), np.uint16), planarconfig="contig"))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        place = file.pages.first.tags["Compression"].valueoffset
    content[place] = 5
    with pytest.raises(UserError, match=r"compressed with LZW: `pip install imagecodecs`"):
        open_rgb(bytes(content), {**PLAIN, "bands": [0, 1]})


@pytest.mark.parametrize("turn", range(1, 9))
def test_tiff_and_deep_png_are_turned_as_their_tag_says(turn):
    jpeg = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turn
    big = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
    Image.fromarray(big).save(jpeg, "jpeg", quality=100, subsampling=0, exif=exif)
    expected = open_rgb(jpeg.getvalue()).astype(int)
    for pixels in (big, WIDE[16](big)):
        for options in ({}, {"compression": "zlib"}):
            found = open_rgb(tiff(pixels, extratags=[(274, "H", 1, turn, True)], **options))
            assert np.abs(found - expected).mean() < 4
    shown = open_rgb(png(WIDE[16](big[..., 0]), exif=exif))
    assert np.abs(shown[..., 0] - expected[..., 0]).mean() < 4


def test_the_range_is_that_of_the_bits_or_of_the_values():
    assert choose_range(np.arange(4085, dtype=np.uint16)) == [0, 4095]
    assert choose_range(RNG.random(1000)) == [0, 1]
    assert choose_range(np.full(9, 40_000, np.uint16)) == [0, 65535]
    dim = RNG.integers(100, 1200, 100_000).astype(np.uint16)
    dim[0] = 65535  # a hot pixel
    assert choose_range(dim) == pytest.approx([101, 1198], abs=2)
    low, high = choose_range(np.append(RNG.normal(0, 300, 10_000), [np.nan, np.inf]))
    assert -1500 < low < -600 < 600 < high < 1500


def test_truncated_files_are_refused():
    for content in (tiff(WIDE[16](COLOURS)), tiff(WIDE[16](COLOURS), compression="zlib"), deep_png(WIDE[16](COLOURS))):
        with pytest.raises(UserError, match="Cannot decode an image of"):
            open_rgb(content[: len(content) - 30])
    bomb = bytearray(tiff(np.zeros((4, 4), np.uint16)))
    with tifffile.TiffFile(io.BytesIO(bytes(bomb))) as file:
        places = [file.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for place in places:
        bomb[place : place + 2] = (65_000).to_bytes(2, "little")
    with pytest.raises(UserError, match="65000 x 65000 pixels"):
        open_rgb(bytes(bomb))


def test_transparency_shows_the_background_and_no_fringes():
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((250, 5, 5, 255), (8, 8, 24, 24))
    for content in (
        png(image),
        png(image.quantize(8)),
        tiff(np.array(image), photometric="rgb", extrasamples=["unassalpha"]),
    ):
        for shown in (open_rgb(content), decode(content, 32)):
            assert shown[2, 2].tolist() == [255, 255, 255]
            assert np.abs(shown[16, 16].astype(int) - (250, 5, 5)).max() < 8
        small = decode(content, 11, {**PLAIN, "background": [0, 200, 0]}).astype(int)
        assert small[0, 0].tolist() == [0, 200, 0]
        mixed = (small[..., 0] / 250).clip(0, 1)[..., None]  # on the edge: red and the background, nothing darker
        assert np.abs(small - (mixed * (250, 5, 5) + (1 - mixed) * (0, 200, 0))).max() < 12
    deep = np.array(image).astype(np.uint16) * 257
    assert np.array_equal(open_rgb(deep_png(deep), {**PLAIN, "range": [0, 65535]}), open_rgb(png(image)))
    grey = Image.new("LA", (8, 8), (10, 0))
    assert (open_rgb(png(grey), {**PLAIN, "background": [7, 8, 9]}) == (7, 8, 9)).all()


def class_folders(root: Path, suffix: str, wide: Any = lambda x: x) -> Path:
    """Two classes, bright and dark noise, of 12 images each."""
    rng = np.random.default_rng(1)
    for name, share in (("bright", 1.0), ("dark", 0.5)):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = (rng.integers(0, 256, (40, 30)) * share).astype(np.uint8)
            content = tiff(wide(pixels)) if suffix == ".tif" else png(wide(pixels))
            (root / name / f"{number:02d}{suffix}").write_bytes(content)
    return root


def experiment(root: Path, *keys: str) -> Experiment:
    return Experiment(load_config(["data=image_folder", f"data.root={root}", "data.image_size=16", *keys]))


@pytest.mark.parametrize(("bits", "suffix"), [(12, ".png"), (16, ".tif"), (8, ".tif"), (16, ".png")])
def test_class_folders_of_more_bits_give_the_batches_of_8_bits(tmp_path, bits, suffix):
    plain = experiment(class_folders(tmp_path / "plain", ".png"))
    deep = experiment(class_folders(tmp_path / "deep", suffix, WIDE[bits]))
    for name in ("train", "val", "test"):
        numbers = np.arange(len(plain.split(name)))
        assert np.array_equal(plain.split(name).images.get(numbers), deep.split(name).images.get(numbers))
    assert deep.cfg.data.range == ("file" if bits == 8 else [0, 2**bits - 1])
    assert deep.card().input["pixels"] == {
        "range": None if bits == 8 else [0, 2**bits - 1],
        "bands": None,
        "background": [255, 255, 255],
    }


def test_the_range_is_chosen_once_and_stays_with_other_data(tmp_path):
    class_folders(tmp_path / "train", ".tif", lambda x: x.astype(np.uint16) + 300)
    trained = experiment(tmp_path / "train")
    chosen = trained.split("train") and list(trained.cfg.data.range)
    assert chosen == pytest.approx([300, 555], abs=4)
    class_folders(tmp_path / "other", ".tif", lambda x: x.astype(np.uint16) * 10 + 300)
    later = Experiment(trained.cfg)
    later.cfg.data.root = str(tmp_path / "other")
    assert later.split("test").images.get(np.arange(2)).mean() > 200  # ten times as bright, and so it looks
    own = experiment(tmp_path / "other", "data.range=file")
    assert own.split("test").images.get(np.arange(2)).mean() == pytest.approx(95, abs=40)


def test_bands_are_channels_and_need_as_many_means(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(6):
            pixels = (RNG.random((12, 12, 5)) * (100, 4000, 4000, 4000, 9000)).astype(np.uint16)
            (tmp_path / name / f"{number}.tif").write_bytes(tiff(pixels, planarconfig="contig"))
    four = ["data.bands=[0,1,4,2]", "data.mean=[0.5,0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2,0.2]", "data.batch_size=4"]
    deep = experiment(tmp_path, *four)
    images, _ = next(iter(deep.build_loader("val")))
    assert images.shape[1:] == deep.input_shape[2:] + deep.input_shape[:2] == (4, 16, 16)
    assert np.abs(images.mean(axis=(0, 2, 3))).max() < 1.3  # each band in its own range
    assert len(deep.cfg.data.range) == 4
    with pytest.raises(UserError, match="one value for each of 4 channels"):
        experiment(tmp_path, "data.bands=[0,1,4,2]", "data.batch_size=4").build_loader("val")
    with pytest.raises(UserError, match=r"it has 5 bands: choose with data.bands"):
        experiment(tmp_path, "data.batch_size=4").split("val").images.get(np.arange(1))


@pytest.mark.parametrize(
    "keys",
    [
        {"bands": [-1]},
        {"bands": ["red"]},
        {"background": [0, 0]},
        {"background": [0, 0, 256]},
        {"range": [5, 5]},
        {"range": [[0, 1], [0, 2]]},
        {"range": [0, "x"]},
        {"range": [1]},
    ],
)
def test_settings_that_mean_nothing_are_refused(keys):
    with pytest.raises(UserError, match=r"data\.(bands|background|range)="):
        read_settings(keys)


def test_data_in_memory_refuse_the_keys():
    for key in ("data.bands=[0]", "data.range=[0, 100]", "data.background=[0, 0, 0]"):
        with pytest.raises(UserError, match="are for image files, and data=digits has none"):
            build_dataset(load_config(["data=digits", key]), "train")


def test_the_check_reads_as_training_does(tmp_path):
    class_folders(tmp_path, ".tif", WIDE[12])
    (tmp_path / "dark" / "bands.tif").write_bytes(tiff(np.zeros((9, 9, 5), np.uint16), planarconfig="contig"))
    (tmp_path / "dark" / "cut.tif").write_bytes(tiff(WIDE[16](COLOURS))[:-20])
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    (tmp_path / "dark" / "clear.png").write_bytes(png(image))
    result = check(load_config(["data=image_folder", f"data.root={tmp_path}"]), 2)
    kinds = {finding.path: finding.kind for finding in result.findings if finding.severity == "error"}
    assert kinds == {"dark/bands.tif": "bands", "dark/cut.tif": "unreadable"}
    assert set(result.facts["dark/clear.png"].thumb) == {255}
    assert 90 < np.frombuffer(result.facts["bright/00.tif"].thumb, np.uint8).mean() < 165
