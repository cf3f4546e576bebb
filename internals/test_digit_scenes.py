"""Scenes of digits: COCO data that is composed, not downloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.datasets.scenes import digit_scenes
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.scenes import digit_images, read_coco
from src.kit.scenes.augmentation import outline_boxes
from src.kit.splitting import stratified_split

FEW = {"train": 12, "val": 6, "test": 6}


def make(root: Path) -> Path:
    return digit_scenes.download(root=str(root))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, "SCENES", FEW)
        return make(tmp_path_factory.mktemp("data") / "digit_scenes")


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def config(root: Path):
    return load_config(["task=detection", f"data.root={root.as_posix()}"])


def test_they_are_the_same_everywhere_and_made_once(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digit_scenes, "SCENES", FEW)
    (tmp_path / "other").mkdir()  # an empty folder may be there
    killed = tmp_path / ".downloads" / "other.new" / "train"  # which `clean` would remove
    killed.mkdir(parents=True)
    assert files(make(tmp_path / "other")) == files(scenes)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert capsys.readouterr().out == f"Composing 24 scenes in {tmp_path / 'other'}\n"
    monkeypatch.setattr(digit_scenes, "compose_scene", None)
    assert make(scenes) == scenes
    assert len(files(scenes)) == 24 + 3


def test_all_of_them_are_written_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, "SCENES", FEW)
    whole, count = digit_scenes.compose_scene, []

    def full_disk(*arguments):
        count.append(1)
        if len(count) > 15:
            raise OSError(28, "No space left on device")
        return whole(*arguments)

    monkeypatch.setattr(digit_scenes, "compose_scene", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        make(tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, "SCENES", FEW)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"empty it, or set data\.root"):
        make(tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.txt"]


def test_others_may_read_them_as_any_folder_that_is_made(scenes, tmp_path):
    (tmp_path / "folder").mkdir()
    assert scenes.stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_missing_scenes_name_the_command(tmp_path):
    with pytest.raises(UserError, match=r"download\.py data=digit_scenes"):
        build_dataset(config(tmp_path), "train")


def test_they_are_coco_data_with_boxes_around_their_masks(scenes):
    for split, count in FEW.items():
        dataset = build_dataset(config(scenes), split)
        assert (len(dataset), dataset.classes) == (count, tuple("0123456789"))
        assert dataset.has_outlines
        assert not dataset.flippable, "a mirrored digit is none"
        stored = json.loads((scenes / "annotations" / f"{split}.json").read_text("utf-8"))
        areas = [[row["area"] for row in stored["annotations"] if row["image_id"] == k + 1] for k in range(count)]
        for index in range(count):
            sample = dataset.read(index)
            assert sample.image.shape == (128, 128, 3)
            assert 2 <= len(sample.labels) <= digit_scenes.MOST
            assert np.array_equal(sample.boxes, outline_boxes(sample.masks))
            assert sample.masks.sum(axis=(1, 2)).tolist() == areas[index]
            assert not sample.crowd.any()


def test_what_is_read_is_what_was_composed(scenes):
    from sklearn.datasets import load_digits

    digits = load_digits()
    glyphs = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    part = stratified_split(digits.target.astype(np.int64), (0.15, 0.15), digit_scenes.SEED)[1]
    rng = np.random.default_rng([digit_scenes.SEED, 1])
    dataset = read_coco(scenes / "annotations" / "val.json", scenes / "val")
    for index in range(len(dataset)):
        scene = digit_images.compose_scene(glyphs[part], digits.target[part], digit_scenes.SIZE, digit_scenes.MOST, rng)
        read = dataset.read(index)
        assert np.array_equal(read.labels, scene.labels)
        assert np.array_equal(read.masks, scene.masks)
        assert np.abs(read.image.astype(int) - scene.image).mean() < 8, "JPEG loses little"


def test_no_training_digit_is_in_the_other_splits(tmp_path, monkeypatch):
    seen = []

    def note(root, split, glyphs, targets, rng):
        seen.append({glyph.tobytes() for glyph in glyphs})
        assert len(set(targets.tolist())) == 10
        (root / split).mkdir()

    monkeypatch.setattr(digit_scenes, "write_split", note)
    make(tmp_path / "data")
    train, val, test = seen
    assert not train & val
    assert not train & test
    assert not val & test
    assert len(train) > 1200


def test_most_of_every_digit_can_be_seen(monkeypatch):
    from scipy.ndimage import maximum_filter
    from sklearn.datasets import load_digits

    glyphs = np.rint(load_digits().images[:50] * (255 / 16)).astype(np.uint8)
    paint, whole, hidden = digit_images.paint, [], 0

    def note(image, ink, rng):
        painted = paint(image, ink, rng)
        around = (ink < 0.1) & (maximum_filter(ink, digit_images.SHADOW) > 0.3)
        assert painted[ink > 0.7].mean() - painted[around].mean() > 80, "it differs from the ground and other digits"
        whole.append(digit_images.fill_holes(ink > 0.4))
        return painted

    monkeypatch.setattr(digit_images, "paint", note)
    for seed in range(15):
        whole.clear()
        scene = digit_images.compose_scene(glyphs, np.arange(50), 128, 7, np.random.default_rng(seed))
        for seen, mask in zip(scene.masks, whole, strict=True):
            assert not (seen & ~mask).any()
            assert seen.sum() >= digit_images.LEAST_VISIBLE * mask.sum()
            hidden += seen.sum() < mask.sum()
        assert scene.masks.sum(axis=0).max() == 1, "a pixel belongs to the digit on top"
    assert hidden > 5, "digits overlap"


def test_images_are_small_jpegs(scenes):
    with Image.open(scenes / "train" / "0000.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))
