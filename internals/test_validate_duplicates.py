"""Copies, near copies and leaks between splits are found, and different images are not taken for copies."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from checked_data import class_folders, found, run
from src.kit.checks import Entry
from src.kit.checks.copies import WINDOW, find_copies, near_pairs
from src.kit.checks.images import inspect_files

REAL = os.environ.get("TEST_DATA_DIR")


def scene(seed: int, size: tuple[int, int] = (200, 160)) -> Image.Image:
    """A picture with large and small structure, as photos have."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.GaussianBlur(1))


def copies(root: Path) -> dict[tuple[str, str], str]:
    """(kind, path) -> the original of every copy."""
    return {(finding.kind, finding.path): finding.other for finding in run("image_folder", root).findings}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("train/cat/0", "train/cat/1", "train/dog/0", "val/cat/0", "val/dog/0")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    return tmp_path


def test_different_images_are_no_copies(folder):
    assert copies(folder) == {}


def test_exact_copies_leaks_and_conflicts(folder):
    shutil.copy(folder / "train/cat/0.png", folder / "train/cat/copy.png")
    assert copies(folder) == {("duplicate", "train/cat/copy.png"): "train/cat/0.png"}
    shutil.copy(folder / "train/cat/0.png", folder / "val/dog/copy.png")
    assert copies(folder) == {
        ("leak", "train/cat/0.png"): "val/dog/copy.png",
        ("leak", "train/cat/copy.png"): "val/dog/copy.png",
        ("conflict", "train/cat/0.png"): "val/dog/copy.png",
        ("conflict", "train/cat/copy.png"): "val/dog/copy.png",
    }


@pytest.mark.parametrize("change", ["jpeg", "half", "brighter", "webp"])
def test_near_copies_within_a_split_and_between_splits(folder, change):
    image = Image.open(folder / "val/cat/0.png")
    if change == "half":
        image = image.resize((100, 80))
    if change == "brighter":
        image = image.point(lambda level: min(level + 12, 255))
    suffix = {"jpeg": ".jpg", "webp": ".webp"}.get(change, ".png")
    image.save(folder / f"train/cat/near{suffix}", quality=60)
    assert copies(folder) == {("near_leak", f"train/cat/near{suffix}"): "val/cat/0.png"}
    image.save(folder / f"val/cat/near{suffix}", quality=70)
    assert ("near_duplicate", f"val/cat/near{suffix}") in copies(folder)


def test_flat_and_tiny_images_are_not_compared(tmp_path):
    root = class_folders(tmp_path)
    for number in range(4):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(root / "train/cat" / f"flat{number}.png")
        scene(5, (20 + number, 20)).save(root / "train/cat" / f"tiny{number}.png")
    assert found("image_folder", root) == {}


def test_a_crowd_of_near_copies_is_found_and_costs_little():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (9, 9), dtype=np.uint8)
    count = 20 * WINDOW
    thumbs = np.clip(base.astype(int) + rng.integers(-1, 2, (count, 9, 9)), 0, 255).astype(np.uint8)
    pairs = list(near_pairs(thumbs))
    assert len({later for _, later in pairs}) > 0.99 * (count - 1)
    assert len(pairs) <= 8 * count * WINDOW
    assert all(earlier < later for earlier, later in pairs)


@pytest.mark.skipif(not REAL, reason="TEST_DATA_DIR names no folder with real data")
def test_thresholds_on_real_photos(tmp_path):
    """Every photo saved anew at another quality or half its size is found; no two different photos are copies."""
    shutil.unpack_archive(Path(REAL or "") / "coco128-images.zip", tmp_path)
    photos = sorted(map(str, (tmp_path / "images").rglob("*.jpg")))
    entries, again = [Entry(path, "train") for path in photos], []
    for number, path in enumerate(photos):
        image = Image.open(path).convert("RGB")
        image = image.resize((image.width // 2, image.height // 2)) if number % 2 else image
        again.append(str(tmp_path / f"{number}.jpg"))
        image.save(again[-1], quality=40 if number % 3 else 80)
    assert find_copies(entries, inspect_files(photos, 2)) == []
    both = find_copies(entries + [Entry(path, "val") for path in again], inspect_files(photos + again, 2))
    assert {finding.kind for finding in both} == {"near_leak"}
    assert len(both) >= 0.98 * len(photos)
    assert all(photos[again.index(finding.other)] == finding.path for finding in both)
