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
        ("2 0.5 0.5 0.5 0.5", "the class is 2, but there are 2 classes, numbered from 0"),
        ("-1 0.5 0.5 0.5 0.5", "'-1' is no class number"),
        ("cat 0.5 0.5 0.5 0.5", "'cat' is no class number"),
        ("0 0.5 0.5 0.5", "3 coordinates"),
        ("0", "0 coordinates"),
        ("0 0.1 0.1 0.2 0.2 0.3", "5 coordinates.*a fifth is a confidence"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "7 coordinates"),
        ("0 0.5 0.5 x 0.5", "must be a class number and coordinates"),
        ("0 320 240 100 100", "are no fractions of the image: divide pixels"),
        ("0 nan 0.5 0.5 0.5", "are no fractions of the image"),
        ("9" * 5000 + " 0.5 0.5 0.5 0.5", "is no class number"),
        ("0.5 0.5 0.5 0.5 0.5", "'0.5' is no class number"),
        ("0 0.5 0.5 0.4 0.4 0.5 0.5 2 0.4 0.4 1 0.6 0.6 0", "add their shape to data.yaml, such as kpt_shape"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    root = write_yolo(tmp_path, {"a": f"0 0.5 0.5 0.5 0.5\n{line}\n"})
    with pytest.raises(UserError, match=rf"a\.txt, line 2.*{message}.*validate_data\.py`"):
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


def test_class_names_stay_texts(tmp_path):
    for text in ("names: [yes, no, 001, 0x10, 1e3, null, 2024-01-01]", "names: {00: a}", "\ufeffnames: {0: yes}"):
        (tmp_path / "data.yaml").write_text(text, "utf-8")
        if "00" in text and "001" not in text:
            with pytest.raises(UserError, match="must have `names`"):
                yolo_format.read_classes(tmp_path)
            continue
        expected = ("yes", "no", "001", "0x10", "1e3", "null", "2024-01-01") if "001" in text else ("yes",)
        assert yolo_format.read_classes(tmp_path) == expected


def test_classes_of_numpys_notation(tmp_path):
    assert read(write_yolo(tmp_path, {"a": "1.000000e+00 0.5 0.5 0.5 0.5"})).labels(0).tolist() == [1]


def pose(points: int, values: int, place: float = 0.5) -> str:
    """A box in the middle, with keypoints in it."""
    keypoints = " ".join(f"{place:.2f} {0.4 + 0.2 * k / points:.3f}" + " 2" * (values - 2) for k in range(points))
    return f"0 {place} 0.5 0.4 0.5 {keypoints}"


@pytest.mark.parametrize(("points", "values"), [(17, 3), (4, 3), (5, 2), (1, 2)])
def test_boxes_of_pose_labels_are_read_where_their_shape_is_known(tmp_path, points, values):
    lines = [pose(points, values, 0.5), pose(points, values, 0.6), "1 0.5 0.5 0.2 0.2"]
    root = write_yolo(tmp_path, {"a": "\n".join(lines)})
    (root / "data.yaml").write_text(f"names: [cat, dog]\nkpt_shape: [{points}, {values}]\n")
    scenes = build_dataset(configuration("yolo_folder", root, val_fraction=0.0, test_fraction=0.0), "train")
    assert not scenes.has_outlines
    np.testing.assert_allclose(scenes.read(0).boxes, [[6, 2.5, 14, 7.5], [8, 2.5, 16, 7.5], [8, 4, 12, 6]], atol=1e-4)
    (root / "labels" / "train" / "a.txt").write_text("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4")
    with pytest.raises(UserError, match=rf"line 1: 8 numbers follow the class, but .* 4 \+ {points * values}"):
        build_dataset(configuration("yolo_folder", root), "train")


@pytest.mark.parametrize(("points", "values"), [(17, 3), (4, 3), (5, 2)])
def test_pose_labels_are_no_outlines(tmp_path, points, values):
    root = write_yolo(tmp_path, {f"{k}": pose(points, values, 0.3 + k / 20) for k in range(6)})
    with pytest.raises(
        UserError, match=r"0\.txt, line 1: .*add their shape to data.yaml, such as kpt_shape: \[17, 3\]"
    ):
        read(root)


@pytest.mark.parametrize("shape", ["17", "[17]", "[17, 4]", "[0, 3]", "[a, b]", "[100000, 3]", "{a: 1}"])
def test_a_wrong_shape_of_keypoints_is_refused(tmp_path, shape):
    (tmp_path / "data.yaml").write_text(f"names: [cat]\nkpt_shape: {shape}")
    with pytest.raises(UserError, match=r"kpt_shape must be \[points, 2\] or \[points, 3\]"):
        yolo_format.read_keypoints(tmp_path)


def test_outlines_of_one_length_are_no_pose_labels(tmp_path):
    quads = {f"{k}": f"0 0.{k} 0.1 0.{k + 3} 0.1 0.{k + 3} 0.6 0.{k} 0.6" for k in range(1, 7)}
    assert read(write_yolo(tmp_path, quads)).has_outlines


@pytest.mark.parametrize(
    "text",
    [
        "names: " + "[" * 20_000,
        "names: [[cat], dog]",
        "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]",
        "names: {0: cat, 0.0: dog, [1]: x}",
    ],
)
def test_nested_names_are_refused(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml (must have `names`|is no YAML)"):
        yolo_format.read_classes(tmp_path)


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
