"""YOLO folders: boxes, outlines, class names, layouts, and lines that cannot be meant."""

import os
from pathlib import Path

import numpy as np
import pytest

from scene_files import configuration, image, write_yolo
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.scenes import yolo_format

needs_photos = pytest.mark.skipif(not os.environ.get("TEST_DATA_DIR"), reason="TEST_DATA_DIR is not set: no photos")


def read(root: Path):
    return yolo_format.read_yolo(root / "images" / "train", root / "labels" / "train", yolo_format.read_classes(root))


def test_fractions_become_pixels_when_the_image_is_read(tmp_path):
    root = write_yolo(tmp_path, {"a": "1 0.5 0.5 0.5 0.2\n\n0 0.1 0.1 0.2 0.2\n", "b": ""})
    scenes = read(root)
    sample = scenes.read(0)
    np.testing.assert_allclose(sample.boxes, [[5, 4, 15, 6], [0, 0, 4, 2]], atol=1e-5)
    assert (sample.labels.tolist(), sample.crowd.tolist()) == ([1, 0], [False, False])
    assert (scenes.classes, sample.image_id, sample.masks) == (("cat", "dog"), "a", None)
    assert len(scenes.read(1).boxes) == 0


def test_outlines_give_masks_and_boxes_around_them(tmp_path):
    scenes = read(write_yolo(tmp_path, {"a": "0 0.1 0.2 0.4 0.2 0.4 0.8 0.1 0.8"}))
    sample = scenes.read(0)
    np.testing.assert_allclose(sample.boxes, [[2, 2, 8, 8]], atol=1e-5)
    expected = np.zeros((10, 20), bool)
    expected[2:8, 2:8] = True
    assert np.array_equal(sample.masks[0], expected)


def test_an_image_without_a_label_file_has_no_objects(tmp_path):
    root = write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    image(root / "images" / "train" / "deep" / "b.jpg")
    (root / "labels" / "train" / "nobody.txt").write_text("0 0.5 0.5 0.5 0.5")
    scenes = read(root)
    assert [(scenes.path(index).name, len(scenes.labels(index))) for index in range(2)] == [("a.png", 1), ("b.jpg", 0)]


def test_boxes_that_rounding_pushed_over_the_edge_are_clipped(tmp_path):
    sample = read(write_yolo(tmp_path, {"a": "0 0.95 0.5 0.2 1.00001\n1 1.5 0.5 0.2 0.2"})).read(0)
    np.testing.assert_allclose(sample.boxes, [[17, 0, 20, 10]], atol=1e-4)


def test_two_points_are_no_outline_but_a_box(tmp_path):
    scenes = read(write_yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.4 0.1 0.4 0.6"}))
    assert not scenes.has_outlines, "only one of the two objects has one"
    np.testing.assert_allclose(scenes.read(0).boxes, [[8, 3, 12, 7], [2, 1, 8, 6]], atol=1e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", "has the class 2, but there are 2 classes, numbered from 0"),
        ("-1 0.5 0.5 0.5 0.5", "has the class -1"),
        ("cat 0.5 0.5 0.5 0.5", "has the class cat"),
        ("0 0.5 0.5 0.5", "has 3 coordinates"),
        ("0", "has 0 coordinates"),
        ("0 0.1 0.1 0.2 0.2 0.3", "has 5 coordinates"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 7 coordinates"),
        ("0 0.5 0.5 x 0.5", "must be a class number and coordinates"),
        ("0 320 240 100 100", "are no fractions of the image: divide pixels"),
        ("0 nan 0.5 0.5 0.5", "are no fractions of the image"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    root = write_yolo(tmp_path, {"a": f"0 0.5 0.5 0.5 0.5\n{line}\n"})
    with pytest.raises(UserError, match=rf"a\.txt, line 2.*{message}"):
        read(root)


def test_a_label_file_that_is_no_text_is_named(tmp_path):
    root = write_yolo(tmp_path, {"a": ""})
    (root / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt is no text file"):
        read(root)


@pytest.mark.parametrize("text", ["names: [cat, dog]", "names: {0: cat, 1: dog}", "names: {1: dog, 0: cat}\nnc: 2"])
def test_class_names(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    assert yolo_format.read_classes(tmp_path) == ("cat", "dog")


@pytest.mark.parametrize(
    "text", ["", "[cat]", "names: cat", "names: []", "names: {1: cat, 2: dog}", "names: [", "names: !!python/name:os.x"]
)
def test_names_that_are_no_list_are_refused(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml (must have `names`|is no YAML)"):
        yolo_format.read_classes(tmp_path)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(UserError, match=r"data\.yaml does not exist: write the class names"):
        yolo_format.read_classes(tmp_path)


LAYOUTS = [("images/train", "labels/train"), ("train/images", "train/labels"), ("images/train2017", "labels/train2017")]


@pytest.mark.parametrize(("images", "labels"), LAYOUTS)
def test_layouts(tmp_path, images, labels):
    image(tmp_path / images / "a.png")
    assert yolo_format.find_yolo_splits(tmp_path) == {"train": (tmp_path / images, tmp_path / labels)}
    with pytest.raises(UserError, match="does not exist: it must hold the label files"):
        yolo_format.read_yolo(tmp_path / images, tmp_path / labels, ["cat"])


def test_a_folder_of_anything_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no YOLO data set"):
        yolo_format.find_yolo_splits(tmp_path)


def test_a_missing_data_set_names_the_command_that_fetches_it(tmp_path):
    for name in ("coco128", "coco2017"):
        with pytest.raises(UserError, match=f"does not exist: run `python scripts/download.py data={name}`"):
            build_dataset(configuration(name, tmp_path), "train")


@needs_photos
def test_coco128(tmp_path):
    import zipfile

    for part in ("images", "detection"):
        with zipfile.ZipFile(Path(os.environ["TEST_DATA_DIR"]) / f"coco128-{part}.zip") as packed:
            packed.extractall(tmp_path)
    parts = {split: build_dataset(configuration("coco128", tmp_path), split) for split in ("train", "val", "test")}
    sizes = {split: len(part) for split, part in parts.items()}
    assert (sizes["train"] + sizes["val"], sizes["test"]) == (128, 128)
    paths = {part.path(index) for part in parts.values() for index in range(len(part))}
    assert len(paths) == 256
    assert all(len(part.classes) == 80 for part in parts.values())
    files = [tmp_path / "labels" / path.parent.name / f"{path.stem}.txt" for path in paths]
    lines = sum(len(file.read_text().splitlines()) for file in files if file.exists())  # two photos have no file
    assert sum(int(part.class_counts().sum()) for part in parts.values()) == lines
    sample = next(parts["test"].read(index) for index in range(128) if parts["test"].path(index).stem == "000000000139")
    assert sample.image.shape == (426, 640, 3)
    assert [parts["test"].classes[label] for label in sample.labels[:2]] == ["potted plant", "tv"]
