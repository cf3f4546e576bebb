"""The augmentations of classified images: what they change, what they keep, and that they can be repeated."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from paths import TEMPLATE
from src.kit.augment import AUGMENTATIONS, build_augmentation, import_albumentations
from src.kit.errors import UserError


def photos(count: int, channels: int = 3, size: int = 32) -> np.ndarray:
    """Random images without sharp edges, uint8 (B, C, H, W)."""
    coarse = np.random.default_rng(0).integers(40, 216, (count, channels, 4, 4), dtype=np.uint8)
    return coarse.repeat(size // 4, axis=2).repeat(size // 4, axis=3)


def marked(count: int) -> np.ndarray:
    """Black images of 32 x 32 with one white pixel at row 16, column 12."""
    pixels = np.zeros((count, 3, 32, 32), np.uint8)
    pixels[:, :, 16, 12] = 255
    return pixels


def test_basic_moves_every_image_by_its_own_amount():
    images = build_augmentation("basic", True)(marked(2000), np.random.default_rng(0))
    assert images.sum() == 255 * 3 * 2000  # the pixel never leaves the image, nor is it doubled
    _, rows, places = np.nonzero(images[:, 0])
    assert set(rows) == set(range(12, 21))
    assert set(places) == set(range(8, 17))
    assert np.array_equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize(("border", "mode"), [("black", "constant"), ("mirror", "reflect")])
def test_shifts_are_crops_of_the_padded_image_of_every_offset(border, mode):
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 9), dtype=np.uint8)
    padded = np.pad(image, [(0, 0), (2, 2), (2, 2)], mode)
    crops = {padded[:, top : top + 8, left : left + 9].tobytes() for top in range(5) for left in range(5)}
    moved = build_augmentation("basic", False, 2, border)(np.tile(image, (400, 1, 1, 1)), np.random.default_rng(0))
    assert {each.tobytes() for each in moved} == crops
    still = build_augmentation("basic", False, 0, border)(image[None], np.random.default_rng(0))
    assert np.array_equal(still[0], image)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 1, 28, 28), (5, 3, 32, 32), (3, 3, 96, 96), (9, 3, 4, 4)])
def test_every_augmentation_keeps_shape_and_type_and_leaves_the_data_alone(name, shape):
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    before = images.copy()
    source = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)  # as images from files come: channels last
    for flippable in (True, False):
        changed = build_augmentation(name, flippable)(source, np.random.default_rng(2))
        assert (changed.shape, changed.dtype) == (shape, np.uint8)
        assert np.array_equal(source, before)
        assert np.array_equal(changed, before) == (name == "none")


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_the_generator_decides_everything_in_any_thread(name):
    images = photos(16)
    transform = build_augmentation(name, True)
    expected = [transform(images, np.random.default_rng(seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: transform(images, np.random.default_rng(seed)), range(12)))
    assert all(np.array_equal(left, right) for left, right in zip(expected, found, strict=True))
    assert len({result.tobytes() for result in expected}) == 12
    assert (
        len({image.tobytes() for image in transform(np.repeat(photos(1), 50, axis=0), np.random.default_rng(3))}) > 25
    )


def test_advanced_mirrors_half_of_the_images_and_only_where_it_may():
    ramp = np.tile(np.linspace(60, 200, 32).astype(np.uint8), (400, 3, 32, 1))  # brighter to the right
    for flippable, expected in ((True, 0.5), (False, 0.0)):
        images = build_augmentation("advanced", flippable)(ramp, np.random.default_rng(0)).astype(float)
        mirrored = images[:, :, 12:20, 10:14].mean(axis=(1, 2, 3)) > images[:, :, 12:20, 18:22].mean(axis=(1, 2, 3))
        assert mirrored.mean() == pytest.approx(expected, abs=0.08)


def test_the_steps_of_advanced_are_drawn_independently():
    """Were all of them seeded alike, an image would get either all of the changes or none."""
    flat = np.full((600, 1, 32, 32), 128, np.uint8)
    images = build_augmentation("advanced", False)(flat, np.random.default_rng(0)).astype(int)
    moved = (images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).any(axis=1)  # black in a corner
    recoloured = abs(np.median(images[:, 0, 12:20, 12:20], axis=(1, 2)) - 128) > 6
    assert {(bool(a), bool(b)) for a, b in zip(moved, recoloured, strict=True)} == {
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    }


def test_advanced_keeps_what_is_in_the_centre():
    images = np.zeros((500, 1, 32, 32), np.uint8)
    images[:, :, 12:20, 12:20] = 255
    changed = build_augmentation("advanced", True)(images, np.random.default_rng(0))
    bright = (changed > 100).sum(axis=(1, 2, 3))  # of 64 pixels
    assert (bright > 20).mean() > 0.98
    assert bright.max() < 64 * 1.25**2 * 1.2


def test_advanced_brings_in_no_framework_and_asks_no_network():
    code = (
        "import sys; from src.kit.augment import build_augmentation\n"
        "assert 'albumentations' not in sys.modules and 'cv2' not in sys.modules\n"
        "import socket; socket.socket.connect = None; socket.getaddrinfo = None\n"
        "build_augmentation('advanced', True)\n"
        "assert 'albumentations' in sys.modules\n"
        "print(sorted({'torch', 'paddle'} & sys.modules.keys()))"
    )
    variables = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=TEMPLATE,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_without_albumentations_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "albumentations", None)
    import_albumentations.cache_clear()
    with pytest.raises(UserError, match=r"needs albumentations: run `pip install"):
        build_augmentation("advanced", True)
    assert sys.modules.get("torch", import_albumentations) is not None  # torch can be imported as before


def test_basic_costs_next_to_nothing_and_advanced_less_than_decoding_a_photo():
    images = photos(256)
    costs = {}
    for name in ("basic", "advanced"):
        transform = build_augmentation(name, True)
        transform(images[:4], np.random.default_rng(0))
        start = time.process_time()
        transform(images, np.random.default_rng(0))
        costs[name] = (time.process_time() - start) / len(images)
    assert costs["basic"] < 50e-6  # 3 microseconds on an idle core
    assert costs["advanced"] < 2e-3  # a quarter of a millisecond
