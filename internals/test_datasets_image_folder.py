"""A folder of class folders: layouts, every kind of image file, and damaged ones."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.config.compose import CONFIGS
from src.kit.errors import UserError
from src.kit.inference import decoding
from src.kit.inference.decoding import decode
from src.kit.loading import find_images, scan_classes

RED, BLUE = (250, 5, 5), (5, 5, 250)


def configuration(root: Path, **keys: object) -> DictConfig:
    data = {"name": "image_folder", "root": str(root), "image_size": 16, "val_fraction": 0.2, "test_fraction": 0.2}
    default = OmegaConf.load(CONFIGS / "data" / "default.yaml")
    return OmegaConf.create({"seed": 0, "data": {**default, **data, **keys}})


def fill(folder: Path, count: int, colour: tuple[int, int, int] = RED, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (40, 30), colour).save(folder / f"{number}{suffix}")


def split_image(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, size[0], size[1]))
    return image


def assert_colour(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> None:
    assert np.abs(pixel.astype(int) - colour).max() <= tolerance, (pixel, colour)


def test_all_images_are_the_test_split_of_a_new_folder(tmp_path):
    fill(tmp_path / "cat", 20, RED)
    fill(tmp_path / "dog", 10, BLUE)
    cfg = configuration(tmp_path, test_fraction=1.0)
    assert np.bincount(build_dataset(cfg, "test").targets).tolist() == [20, 10]
    with pytest.raises(UserError, match=r"fractions 0\.2 \+ 1 must be 0 or more and sum to less than 1"):
        build_dataset(cfg, "train")


def test_one_folder_for_each_class_is_split_by_fractions(tmp_path):
    fill(tmp_path / "cat", 20, RED)
    fill(tmp_path / "dog", 10, BLUE, ".JPG")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    fill(tmp_path / ".cache", 3)
    parts = {split: build_dataset(configuration(tmp_path), split) for split in ("train", "val", "test")}
    assert {split: np.bincount(part.targets).tolist() for split, part in parts.items()} == {
        "train": [12, 6],
        "val": [4, 2],
        "test": [4, 2],
    }
    paths = [path for part in parts.values() for path in part.images.paths]
    assert len(set(paths)) == len(paths) == 30
    train = parts["train"]
    assert train.classes == ("cat", "dog")
    batch = train.images.get(np.arange(len(train)))
    assert (batch.shape, batch.dtype) == ((18, 16, 16, 3), np.uint8)
    for image, target in zip(batch, train.targets, strict=True):
        assert_colour(image[8, 8], (RED, BLUE)[target])


def test_split_folders_are_used_and_a_missing_one_is_taken_from_train(tmp_path):
    for name in ("cat", "dog"):
        fill(tmp_path / "train" / name, 10)
        fill(tmp_path / "test" / name, 3)
    train, val, test = (build_dataset(configuration(tmp_path), split) for split in ("train", "val", "test"))
    assert [len(part) for part in (train, val, test)] == [16, 4, 6]
    fill(tmp_path / "valid" / "dog", 2)  # without a single cat
    train, val = (build_dataset(configuration(tmp_path), split) for split in ("train", "val"))
    assert (len(train), val.targets.tolist()) == (20, [1, 1])
    fill(tmp_path / "valid" / "dgo", 2)
    with pytest.raises(UserError, match=r"Unknown class 'dgo'. Did you mean dog\?"):
        build_dataset(configuration(tmp_path), "val")


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("Training", "VALIDATION", "Testing")])
def test_split_folders_are_found_whatever_their_case(tmp_path, names):
    for folder, count in zip(names, (5, 3, 2), strict=True):
        for name in ("cat", "dog"):
            fill(tmp_path / folder / name, count)
    parts = [build_dataset(configuration(tmp_path), split) for split in ("train", "val", "test")]
    assert [(part.classes, len(part)) for part in parts] == [(("cat", "dog"), count) for count in (10, 6, 4)]


def test_folders_of_splits_that_contradict_each_other_are_refused(tmp_path):
    for folder in ("Val", "test"):
        fill(tmp_path / folder / "cat", 2)
    with pytest.raises(UserError, match=r"has Val, test but no class folders for training: add .*train"):
        build_dataset(configuration(tmp_path), "train")
    for folder in ("train", "Training"):
        fill(tmp_path / folder / "cat", 2)
    with pytest.raises(UserError, match=r"has 2 folders for the train split, Training and train: move them into one"):
        build_dataset(configuration(tmp_path), "train")


def test_flat_folders_of_splits_are_not_classes(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 5)
    with pytest.raises(UserError, match=r"has test, train but no class folders for training"):
        build_dataset(configuration(tmp_path), "train")


def test_hidden_folders_and_thumbnails_are_left_out_and_links_are_followed_once(tmp_path):
    root, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for name in ("cat", "dog"):
        fill(root / name, 4)
    fill(root / "cat" / ".ipynb_checkpoints", 4)
    fill(root / "dog" / "@eaDir", 4)
    fill(root / "@eaDir", 4)
    fill(elsewhere, 3)
    (root / "cat" / "more").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(elsewhere)
    (root / "cat" / "round").symlink_to(root / "cat")
    found = scan_classes(root)
    assert sorted(found) == ["cat", "dog"]
    expected = [f"cat/{number}.png" for number in range(4)] + [f"cat/again/{number}.png" for number in range(3)]
    assert [path.relative_to(root).as_posix() for path in found["cat"]] == expected
    assert [path.name for path in found["dog"]] == ["0.png", "1.png", "2.png", "3.png"]


def test_images_are_in_the_order_of_their_paths_parts(tmp_path):
    names = [
        "a/b.jpg",
        "a-b/x.jpg",
        "a b/x.jpg",
        "a.jpg",
        "Z/1.jpg",
        "a/b/c.jpg",
        "a/b-/c.jpg",
        "10.jpg",
        "9.jpg",
        "é.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [str(path) for path in sorted(map(PurePosixPath, names))]
    assert expected != sorted(names)
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == expected


def test_folders_that_cannot_be_trained_on_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        build_dataset(configuration(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match="images in 0 class folders and needs at least 2"):
        build_dataset(configuration(tmp_path), "train")
    fill(tmp_path / "cat", 3)
    with pytest.raises(UserError, match="images in 1 class folder and needs at least 2"):
        build_dataset(configuration(tmp_path), "train")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".gif"])
def test_every_format_is_resized_by_the_short_side_and_cropped_in_the_centre(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    image = Image.new("RGB", (90, 30), (0, 250, 0))  # green at both ends, outside the crop
    image.paste(split_image((30, 30)), (30, 0))
    image.save(path)
    decoded = decode(path, 16)
    assert decoded.shape == (16, 16, 3)
    assert_colour(decoded[8, 3], RED, 40)
    assert_colour(decoded[8, 12], BLUE, 40)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    source = split_image().convert(mode)
    path = tmp_path / f"image.{'jpg' if mode == 'CMYK' else 'png'}"
    source.save(path)
    decoded = decode(path, 32)
    expected = np.asarray(source.convert("RGB"))[32, 8]
    assert decoded.shape == (32, 32, 3)
    if mode != "1":  # dithered
        assert_colour(decoded[16, 4], expected)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_shrinking_averages_colours_and_not_palette_indices(tmp_path, mode):
    path = tmp_path / "image.png"
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).convert(mode).save(path)
    assert np.abs(decode(path, 16).astype(int) - 127).max() <= 2


def test_a_transparent_palette_keeps_its_colours_on_the_background(tmp_path):
    path = tmp_path / "image.png"
    image = split_image().convert("P", palette=Image.Palette.ADAPTIVE)
    red, blue = image.getpixel((0, 0)), image.getpixel((63, 0))
    image.save(path, transparency=bytes(128 if index == blue else 255 for index in range(2)))
    assert_colour(decode(path, 32)[16, 4], RED)
    assert_colour(decode(path, 32)[16, 28], (130, 130, 253))
    assert red != blue


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((20, 20), 128 * 256 + 7, np.uint16)).save(path)
    assert (decode(path, 8) == 128).all()


def test_exif_rotation_is_applied(tmp_path):
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show: the left side becomes the top
    split_image((256, 256)).save(path, exif=exif, quality=95)
    decoded = decode(path, 32)
    assert_colour(decoded[4, 16], RED)
    assert_colour(decoded[27, 16], BLUE)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "image.jpg"
    split_image((256, 256)).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no image at all", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"Cannot decode .*image\.jpg: .+ Replace it"):
            decode(path, 16)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.new("1", (15_000, 15_000)).save(path)  # 225 million pixels in 30 KB
    with pytest.raises(UserError, match=r"image.png: .*pixels"):
        decode(path, 16)
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9_999)
    with pytest.raises(UserError, match="100 x 100 pixels, more than 9,999"):
        decode(path, 16)
