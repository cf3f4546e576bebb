"""Conversions between COCO, YOLO and VOC: what is kept, what is lost and said to be, and nothing half-written."""

import json
import os
import subprocess
import sys
import zipfile
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from paths import TEMPLATE
from scene_files import SQUARE, annotation, coco_content, image, write_coco, write_yolo
from src.kit.errors import UserError
from src.kit.scenes import convert as module
from src.kit.scenes.annotations import rasterise
from src.kit.scenes.convert import FORMATS, convert_data_set
from src.kit.scenes.yolo_format import one_ring, trace

needs_photos = pytest.mark.skipif(not os.environ.get("TEST_DATA_DIR"), reason="TEST_DATA_DIR is not set: no photos")
NAMES = ("coco", "yolo", "voc")


def contents(root: Path, name: str) -> dict[tuple[str, str], list]:
    """(split, stem) -> boxes in pixels with their class names, in the files' order."""
    found = {}
    for split, scenes in FORMATS[name].read_splits(root).items():
        for index in range(len(scenes)):
            sample = scenes.read(index)
            objects = [(scenes.classes[k], box) for k, box in zip(sample.labels, sample.boxes.tolist(), strict=True)]
            found[split, scenes.path(index).stem] = objects
    return found


def assert_close(found: dict, expected: dict, pixels: float) -> None:
    assert found.keys() == expected.keys()
    for key, objects in expected.items():
        assert [name for name, _ in found[key]] == [name for name, _ in objects]
        boxes, wanted = ([box for _, box in side] for side in (found[key], objects))
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), np.reshape(wanted, (-1, 4)), atol=pixels)


@pytest.fixture
def source(tmp_path) -> Path:
    """A COCO data set with two splits, class ids with gaps and an image without objects."""
    root = tmp_path / "source"
    write_coco(root, coco_content(annotation(1, [1, 2, 3, 4], category_id=90), annotation(2, [5.25, 1.5, 9, 6.75])))
    other = coco_content(annotation(1, [4, 4, 8, 5], category_id=7, image_id=9))
    write_coco(root, {**other, "images": [{"id": 9, "file_name": "9.png", "width": 20, "height": 10}]}, "val")
    return root


@pytest.mark.parametrize(("before", "after"), list(permutations(NAMES, 2)))
def test_every_direction_there_and_back(source, tmp_path, before, after):
    start = source
    if before != "coco":
        start = tmp_path / "start"
        convert_data_set(source, start, "coco", before)
    convert_data_set(start, tmp_path / "there", before, after)
    convert_data_set(tmp_path / "there", tmp_path / "back", after, before)
    expected = contents(start, before)
    assert_close(contents(tmp_path / "there", after), expected, 0.5)
    assert_close(contents(tmp_path / "back", before), expected, 0.5)
    assert FORMATS[before].read_splits(tmp_path / "back")["train"].classes == ("cat", "dog", "owl")
    for scenes in FORMATS[before].read_splits(tmp_path / "back").values():
        for index in range(len(scenes)):
            original = next(source.rglob(scenes.path(index).name))
            assert scenes.path(index).read_bytes() == original.read_bytes()


hundredths = st.integers(0, 1000).map(lambda value: value / 100)
spans = st.tuples(hundredths, hundredths).filter(lambda span: abs(span[0] - span[1]) >= 0.02).map(sorted)
boxes = st.lists(
    st.tuples(spans, spans).map(lambda s: [s[0][0], s[1][0], s[0][1] - s[0][0], s[1][1] - s[1][0]]), max_size=5
)


@settings(max_examples=15, deadline=None)
@given(boxes=boxes)
def test_boxes_survive_exactly_in_coco_and_within_half_a_pixel_elsewhere(tmp_path_factory, boxes):
    root = tmp_path_factory.mktemp("boxes")
    boxes = [[round(value, 2) for value in box] for box in boxes]
    write_coco(root / "a", coco_content(*[annotation(number, box) for number, box in enumerate(boxes)]))
    expected = contents(root / "a", "coco")
    for name, pixels in (("yolo", 1e-4), ("voc", 1.0)):
        convert_data_set(root / "a", root / name, "coco", name)
        assert_close(contents(root / name, name), expected, pixels)
        convert_data_set(root / name, root / f"{name}_back", name, "coco")
        assert_close(contents(root / f"{name}_back", "coco"), contents(root / name, name), 1e-3)
    convert_data_set(root / "yolo", root / "b", "yolo", "coco")
    content = json.loads((root / "b" / "annotations" / "instances_train.json").read_text())
    found = [entry["bbox"] for entry in content["annotations"]]
    np.testing.assert_allclose(np.reshape(found, (-1, 4)), np.reshape(boxes, (-1, 4)), atol=1e-4)


def test_a_box_of_at_least_a_pixel_moves_by_half_a_pixel_at_most_in_voc(tmp_path):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 9, (50, 2))
    sizes = rng.uniform(1.01, 10, (50, 2)).clip(max=[20, 10] - corners)
    sizes = np.where(sizes < 1.01, 1.0, sizes)
    rows = [annotation(k, [*corners[k].round(2), *sizes[k].round(2)]) for k in range(50)]
    write_coco(tmp_path / "a", coco_content(*rows))
    convert_data_set(tmp_path / "a", tmp_path / "b", "coco", "voc")
    assert_close(contents(tmp_path / "b", "voc"), contents(tmp_path / "a", "coco"), 0.51)


def test_outlines_are_kept_between_coco_and_yolo_and_lost_in_voc(tmp_path):
    triangle = [10.3, 1.1, 15.7, 1.1, 12.9, 8.4]
    rows = [
        annotation(1, [2, 2, 6, 6], segmentation=[SQUARE]),
        annotation(2, [10.3, 1.1, 5.4, 7.3], segmentation=[triangle]),
    ]
    write_coco(tmp_path / "a", coco_content(*rows))
    assert convert_data_set(tmp_path / "a", tmp_path / "b", "coco", "yolo") == {"images of train": 2}
    convert_data_set(tmp_path / "b", tmp_path / "c", "yolo", "coco")
    content = json.loads((tmp_path / "c" / "annotations" / "instances_train.json").read_text())
    found = [entry["segmentation"][0] for entry in content["annotations"]]
    assert found == [pytest.approx(ring, abs=1e-3) for ring in (SQUARE, triangle)]
    assert [entry["area"] for entry in content["annotations"]] == [
        36,
        mask.area(mask.frPyObjects([triangle], 10, 20))[0],
    ]
    lost = convert_data_set(tmp_path / "c", tmp_path / "d", "coco", "voc")
    assert lost == {"images of train": 2, "outlines left out, which VOC's format does not know": 2}


def test_crowd_regions_parts_and_codes(tmp_path):
    region = np.zeros((10, 20), np.uint8, order="F")
    region[1:9, 2:12] = 1
    code = {"size": [10, 20], "counts": mask.encode(region)["counts"].decode()}
    parts = [SQUARE, [12.0, 2.0, 16.0, 2.0, 16.0, 6.0, 12.0, 6.0]]
    rows = [
        annotation(1, [2, 1, 10, 8], segmentation=code, iscrowd=1),
        annotation(2, [2, 1, 10, 8], segmentation=code),
        annotation(3, [2, 2, 14, 6], segmentation=parts),
    ]
    write_coco(tmp_path / "a", coco_content(*rows))
    before = FORMATS["coco"].read_splits(tmp_path / "a")["train"].read(0)
    assert convert_data_set(tmp_path / "a", tmp_path / "b", "coco", "yolo") == {
        "images of train": 2,
        "crowd regions left out, which YOLO's format does not know": 1,
        "run-length codes traced as outlines, without their holes": 1,
        "outlines of several parts joined into one": 1,
    }
    after = FORMATS["yolo"].read_splits(tmp_path / "b")["train"].read(0)
    assert np.array_equal(after.masks, before.masks[1:])
    assert convert_data_set(tmp_path / "a", tmp_path / "c", "coco", "voc")["crowd regions marked as difficult"] == 1
    assert FORMATS["voc"].read_splits(tmp_path / "c")["train"].read(0).crowd.tolist() == [True, False, False]


def test_a_traced_mask_is_the_mask_again():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        region = np.zeros((40, 50), bool)
        for _ in range(4):
            top, left = rng.integers(0, 30, 2)
            region[top : top + rng.integers(1, 15), left : left + rng.integers(1, 15)] = True
        again = rasterise(trace(region), 40, 50)
        assert (region ^ again).sum() <= 0.02 * region.sum(), seed


def test_joining_parts_fills_nothing_between_them():
    squares = [
        np.array([[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9]], np.float32) for x, y in ((1, 1), (30, 5), (12, 28))
    ]
    joined = rasterise([one_ring(squares, 40, 40)], 40, 40)
    assert np.array_equal(joined, rasterise(squares, 40, 40))


def test_images_of_the_same_name_get_those_of_their_folders(tmp_path):
    content = coco_content(annotation(1, [1, 1, 5, 5]), annotation(2, [2, 2, 5, 5], image_id=5))
    content["images"][0]["file_name"], content["images"][1]["file_name"] = "x/1.png", "y/1.png"
    write_coco(tmp_path / "a", content)
    for name in ("voc", "yolo"):
        convert_data_set(tmp_path / "a", tmp_path / name, "coco", name)
        found = contents(tmp_path / name, name)
        assert {key: objects[0][1][0] for key, objects in found.items()} == {
            ("train", "train_x_1"): 1,
            ("train", "train_y_1"): 2,
        }
    image(tmp_path / "same" / "images" / "train" / "1.jpg")
    write_yolo(tmp_path / "same", {"1": "0 0.5 0.5 0.5 0.5"})
    with pytest.raises(UserError, match="whose names differ only in their endings"):
        convert_data_set(tmp_path / "same", tmp_path / "b", "yolo", "coco")


def test_nothing_is_left_of_a_conversion_that_fails(source, tmp_path):
    (source / "val" / "9.png").write_bytes(b"no image")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"Cannot read .*9\.png"):
        convert_data_set(source, tmp_path / "target", "coco", "yolo")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").touch()
    with pytest.raises(UserError, match="target is there already: name a new folder"):
        convert_data_set(source, tmp_path / "target", "coco", "yolo")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["mine"]


def test_bad_requests(source, tmp_path):
    with pytest.raises(UserError, match=r"Unknown format 'pascal'. .*coco, voc, yolo"):
        convert_data_set(source, tmp_path / "b", "pascal", "coco")
    twins = [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}]
    write_coco(tmp_path / "twins", coco_content(categories=twins))
    with pytest.raises(UserError, match="two classes of the same name: cat, cat"):
        convert_data_set(tmp_path / "twins", tmp_path / "b", "coco", "voc")


def test_links_take_no_space(source, tmp_path):
    convert_data_set(source, tmp_path / "b", "coco", "yolo", link=True)
    assert (tmp_path / "b" / "images" / "val" / "9.png").samefile(source / "val" / "9.png")


def test_class_maps_that_are_left_out_are_counted(source, tmp_path):
    for name, numbers in (("train", (1, 5)), ("val", (9,))):
        for number in numbers:
            image(source / "class_maps" / name / f"{number}.png", mode="L")
    assert FORMATS["coco"].read_splits(source)["train"].has_class_maps
    for after in NAMES:
        counts = convert_data_set(source, tmp_path / after, "coco", after)
        assert counts["class maps left out, which are not converted"] == 3
    assert not any(
        "class maps" in name for name in convert_data_set(tmp_path / "coco", tmp_path / "again", "coco", "coco")
    )


def test_the_script(source, tmp_path):
    command = [sys.executable, TEMPLATE / "scripts" / "convert_scenes.py", "--from", "coco", "--to", "voc"]
    done = subprocess.run([*command, source, tmp_path / "b"], capture_output=True, text=True, check=True)
    assert "2 images of train" in done.stdout
    assert (tmp_path / "b" / "Annotations" / "9.xml").is_file()
    again = subprocess.run([*command, source, tmp_path / "b"], capture_output=True, text=True)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is there already" in again.stderr


@needs_photos
def test_real_outlines_there_and_back(tmp_path):
    data = Path(os.environ["TEST_DATA_DIR"])
    with zipfile.ZipFile(data / "coco128-instances.zip") as packed:
        labels = sorted(packed.namelist())[:40]
        for name in labels:
            packed.extract(name, tmp_path / "a")
    with zipfile.ZipFile(data / "coco128-images.zip") as packed:
        for name in labels:
            packed.extract(name.replace("labels", "images").replace("txt", "jpg"), tmp_path / "a")
    (tmp_path / "a" / "data.yaml").write_text(json.dumps({"names": [f"class {number}" for number in range(91)]}))
    convert_data_set(tmp_path / "a", tmp_path / "b", "yolo", "coco")
    convert_data_set(tmp_path / "b", tmp_path / "c", "coco", "yolo")
    first, middle, last = (
        FORMATS[kind].read_splits(tmp_path / x)["train"] for x, kind in (("a", "yolo"), ("b", "coco"), ("c", "yolo"))
    )
    total = 0
    for index in range(len(first)):
        a, b, c = first.read(index), middle.read(index), last.read(index)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=2e-3)
        np.testing.assert_allclose(a.boxes, c.boxes, atol=2e-3)
        for other in (b, c):
            assert (a.masks ^ other.masks).sum() <= 0.002 * a.masks.sum() + 2
        total += len(a.labels)
    assert total > 200
    assert module.shown_size(first.path(0)) == (640, 480)


def test_a_forgotten_virtual_environment_is_one_sentence():
    words = ["--from", "voc", "--to", "coco", "a", "b"]
    command = [sys.executable, "-S", "scripts/convert_scenes.py", *words]  # -S: without site-packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=TEMPLATE, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "activate the project's virtual environment" in done.stderr
