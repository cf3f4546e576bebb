"""The picture of a batch: boxes, outlines and class maps are where they belong, and the script as users run it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from scene_files import write_yolo
from src.kit.config.compose import load_config
from src.kit.report.figures import describe_batch, name_of
from src.kit.scenes.drawing import class_colour, draw_scenes, ink_on, paint_regions
from src.kit.scenes.samples import Sample


def make(size: int = 64, **keys) -> Sample:
    whole = {
        "image": np.full((size, size, 3), 128, np.uint8),
        "boxes": np.array([[16, 16, 48, 48]], np.float32),
        "labels": np.array([1]),
        "crowd": np.array([False]),
    }
    return Sample(**{**whole, **keys})


def near(pixels: np.ndarray, number: int) -> np.ndarray:
    """Where a picture has about the colour of a class."""
    return np.abs(pixels[..., :3].astype(int) - 255 * np.array(class_colour(number))).max(axis=-1) < 40


def test_outlines_and_class_maps_colour_their_pixels_only():
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20:40, 20:40] = True
    painted = paint_regions(make(masks=mask))
    changed = (painted != 128).any(axis=-1)
    assert np.array_equal(changed, mask[0])
    inner, edge = painted[30, 30].astype(float), painted[20, 30].astype(float)
    tint = 255 * np.array(class_colour(1))
    assert np.abs(edge - tint).sum() < np.abs(inner - tint).sum() < np.abs(128 - tint).sum()
    semantic = np.full((64, 64), 255, np.uint8)
    semantic[:8] = 3
    assert np.array_equal((paint_regions(make(semantic=semantic)) != 128).any(axis=-1), semantic == 3)


def test_boxes_are_drawn_where_they_are(tmp_path):
    pixels = np.asarray(Image.open(draw_scenes([make()], ["a", "b"], "title", tmp_path / "x.png")))
    rows, columns = np.nonzero(near(pixels, 1))
    side = pixels.shape[1]
    assert columns.min() / side == pytest.approx(0.25, abs=0.03)
    assert columns.max() / side == pytest.approx(0.75, abs=0.03)
    assert (rows.max() - (pixels.shape[0] - side)) / side == pytest.approx(0.75, abs=0.03)


def test_pictures_of_every_kind_of_sample(tmp_path):
    none = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "crowd": np.zeros(0, bool)}
    wide = make(boxes=np.array([[0, 0, 64, 64]], np.float32), crowd=np.array([True]))
    tiny = make(boxes=np.array([[63, 63, 64, 64]], np.float32))
    samples = [make(**none), wide, tiny, make(), make(), make(400, **none)]
    path = draw_scenes(samples, ["a", "$x$ a very long name of a class"], "title", tmp_path / "deep" / "x.png")
    width, height = Image.open(path).size
    assert 1500 < width < 2000
    assert height == pytest.approx(width / 2, rel=0.1)


def test_neighbouring_classes_have_different_colours():
    colours = np.array([class_colour(number) for number in range(91)])
    assert all(0 <= value <= 1 for colour in colours for value in colour)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2) + np.eye(91)
    assert distances.min() > 0.01
    assert min(distances[number, number + 1] for number in range(90)) > 0.3
    assert (ink_on((1, 1, 0)), ink_on((0, 0, 0.5))) == ("black", "white")


def test_mixed_targets_are_named_by_share():
    classes = ("cat", "dog", "owl")
    assert name_of(np.int64(1), classes) == "dog"
    assert name_of(np.array([0.3, 0.0, 0.7], np.float32), classes) == "70% owl, 30% cat"


def test_the_title_names_what_changes_training_images():
    keys = ["data.mixup_alpha=0.2", "data.sizes=[8, 16]"]
    assert describe_batch(load_config(["data.augment=basic"]), "train") == "digits: train split, augment=basic"
    said = "digits: train split, augment=none, mixup_alpha=0.2, sizes=[8, 16]"
    assert describe_batch(load_config(keys), "train") == said
    assert describe_batch(load_config([*keys, "data.cutmix_alpha=1"]), "train").count("cutmix_alpha=1.0") == 1
    assert describe_batch(load_config(keys), "val") == "digits: val split"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, TEMPLATE / "scripts" / "show_data.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_script(tmp_path):
    root = write_yolo(tmp_path / "data", {str(number): "1 0.5 0.5 0.5 0.5" for number in range(8)})
    keys = ["data=yolo_folder", f"data.root={root}", "data.image_size=64", "data.batch_size=4", "data.test_fraction=0"]
    done = run(tmp_path, *keys, "data.val_fraction=0.25")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "data-data-train.png") in done.stdout
    assert near(np.asarray(Image.open(tmp_path / "data-data-train.png")), 1).any()
    done = run(tmp_path, *keys, "data.val_fraction=0.25", "--split", "val", "--out", "sub/x.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(tmp_path / "sub" / "x.png").width > 500


def test_fewer_samples_than_a_batch_are_shown(tmp_path):
    root = write_yolo(tmp_path / "data", {str(number): "1 0.5 0.5 0.5 0.5" for number in range(8)})
    keys = ["data=yolo_folder", f"data.root={root}", "data.image_size=64", "data.batch_size=64", "data.test_fraction=0"]
    done = run(tmp_path, *keys, "data.val_fraction=0.25", "--out", "few.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(tmp_path / "few.png").width > 500


def test_the_script_shows_class_names_and_refuses_mistakes(tmp_path):
    done = run(tmp_path, "data=digits", "data.augment=basic", "--split=test")
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open(tmp_path / "data-digits-test.png").width > 800
    for arguments, message in (
        (["data=digit"], "Unknown data 'digit'. Did you mean digits?"),
        (["--out", "x.jpg"], "--out=x.jpg must end in .png"),
        (["--splt", "val"], "--splt"),
        (["task=tabular", "data=wine"], "data=wine holds the rows of a table and no images"),
    ):
        done = run(tmp_path, *arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert "--split is train" in run(tmp_path, "--help").stdout
