"""COCO files: what is read, that masks equal pycocotools' own, layouts, damage, and files larger than memory."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

from scene_files import SQUARE, annotation, coco_content, configuration, image, write_coco
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.scenes import coco_format, format_files
from src.kit.scenes.annotations import Annotations, rasterise
from src.kit.scenes.coco_format import find_coco_splits
from src.kit.scenes.format_files import stream
from src.kit.scenes.samples import Scenes
from src.kit.training import load_task


def read(root: Path, content: dict) -> Scenes:
    return coco_format.read_coco(write_coco(root, content), root / "train")


def test_boxes_become_corners_and_categories_are_numbered_without_gaps(tmp_path):
    content = coco_content(
        annotation(1, [1.5, 2, 3, 4.25], category_id=90),
        annotation(2, [0, 0, 20, 10], category_id=3, iscrowd=1),
        annotation(3, [5, 5, 1, 1], category_id=7, image_id=5),
    )
    scenes = read(tmp_path, content)
    assert scenes.classes == ("cat", "dog", "owl")
    assert [scenes.labels(index).tolist() for index in range(2)] == [[2, 0], [1]]
    sample = scenes.read(0)
    assert sample.boxes.tolist() == [[1.5, 2, 4.5, 6.25], [0, 0, 20, 10]]
    assert (sample.labels.tolist(), sample.crowd.tolist()) == ([2, 0], [False, True])
    assert (sample.image_id, sample.image.shape, sample.masks, sample.semantic) == (1, (10, 20, 3), None, None)
    assert np.array_equal(sample.image, np.asarray(Image.open(tmp_path / "train" / "1.png")))
    assert scenes.class_counts().tolist() == [1, 1, 1]


def test_images_without_annotations_stay(tmp_path):
    scenes = read(tmp_path, coco_content(annotation(1, [1, 1, 2, 2], segmentation=[SQUARE], image_id=5)))
    assert len(scenes) == 2
    empty = scenes.read(0)
    assert (empty.boxes.shape, empty.labels.shape, empty.masks.shape) == ((0, 4), (0,), (0, 10, 20))


def test_sections_may_come_in_any_order(tmp_path):
    content = coco_content(annotation(1, [1, 1, 2, 2], image_id=5), annotation(2, [3, 3, 2, 2], category_id=90))
    expected = read(tmp_path / "a", content)
    turned = read(tmp_path / "b", {key: content[key] for key in ("annotations", "categories", "images")})
    assert turned.classes == expected.classes
    found = {turned.read(index).image_id: turned.read(index).boxes.tolist() for index in range(2)}
    assert found == {1: [[3, 3, 5, 5]], 5: [[1, 1, 3, 3]]}


hundredths = st.integers(0, 2000).map(lambda value: value / 100)
rings = st.lists(st.tuples(hundredths, hundredths), min_size=3, max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(rings, min_size=1, max_size=3))
def test_masks_of_polygons_equal_pycocotools(parts):
    from src.kit.scenes.annotations import Outlines

    flat = [[value for point in ring for value in point] for ring in parts]
    outlines = Outlines()
    outlines.append([SQUARE])
    outlines.append(flat)
    drawn = rasterise(outlines[1], 20, 20)
    assert np.array_equal(drawn, mask.decode(mask.merge(mask.frPyObjects(flat, 20, 20))).astype(bool))


def test_masks_equal_cocos_own_reader(tmp_path):
    region = np.zeros((10, 20), np.uint8)
    region[2:7, 3:9] = 1
    packed = mask.encode(np.asfortranarray(region))
    content = coco_content(
        annotation(1, [2, 2, 6, 6], segmentation=[SQUARE, [10.3, 1.1, 15.7, 1.1, 12.9, 8.4]]),
        annotation(2, [3, 2, 6, 5], segmentation={"size": [10, 20], "counts": packed["counts"].decode()}, iscrowd=1),
        annotation(3, [3, 2, 6, 5], segmentation={"size": [10, 20], "counts": run_lengths(region)}),
        annotation(4, [3.2, 2.1, 0.2, 0.2], segmentation=[[3.2, 2.1, 3.4, 2.1, 3.4, 2.3]]),
    )
    file = write_coco(tmp_path, content)
    sample = coco_format.read_coco(file, tmp_path / "train").read(0)
    judge = COCO(str(file))
    for place, entry in enumerate(judge.loadAnns(judge.getAnnIds(1))):
        assert np.array_equal(sample.masks[place], judge.annToMask(entry).astype(bool)), entry
    assert not sample.masks[3].any()  # smaller than a pixel: the box counts on


def run_lengths(region: np.ndarray) -> list[int]:
    """COCO's uncompressed code: the lengths of runs of zeros and ones in turn, column by column."""
    flat = region.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def test_boxes_outside_are_clipped_or_dropped_and_counted_once(tmp_path, caplog):
    content = coco_content(
        annotation(1, [-4, 5, 10, 100]),
        annotation(2, [19.999, 0, 0.005, 2]),  # publishers round: not worth a word
        annotation(3, [30, 2, 5, 5]),
        annotation(4, [3, 3, 0, 5]),
        annotation(5, [8, 8, -3, -3]),
    )
    with caplog.at_level(logging.WARNING):
        sample = read(tmp_path, content).read(0)
    np.testing.assert_allclose(sample.boxes, [[0, 5, 6, 10], [19.999, 0, 20, 2]], atol=1e-5)
    assert len(caplog.records) == 1
    assert "1 of 5 boxes reach outside their image and are clipped, 3 are dropped" in caplog.text


def test_outlines_are_used_only_if_every_object_has_one(tmp_path, caplog):
    whole = annotation(1, [2, 2, 6, 6], segmentation=[SQUARE])
    assert read(tmp_path / "a", coco_content(whole)).has_outlines
    with caplog.at_level(logging.WARNING):
        partly = read(tmp_path / "b", coco_content(whole, annotation(2, [1, 1, 2, 2], segmentation=[])))
    assert "1 of 2 objects have no outline" in caplog.text
    assert not partly.has_outlines
    assert partly.read(0).masks is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"the wrong bbox \[1, 2, 3\]: it must be four numbers: x, y, width, height"),
        ({"bbox": [1, 2, 3, float("nan")]}, "the wrong bbox"),
        ({"bbox": [1, 2, 3, "4"]}, "the wrong bbox"),
        ({"bbox": [1e308, 1, 1e308, 1]}, "the wrong bbox"),
        ({"bbox": [10**400, 1, -(10**400), 1]}, "the wrong bbox"),
        ({"bbox": None}, r"the wrong bbox None"),
        ({"category_id": 4}, "annotation 9 has the category_id 4, which is not in 'categories'"),
        ({"category_id": "cat"}, "the wrong category_id 'cat': it must be a whole number"),
        ({"category_id": 10**30}, "the wrong category_id 10{20}.*: it must be a whole number"),
        ({"category_id": 3.5}, "the wrong category_id 3.5"),
        ({"image_id": 77}, "image_id 77, which is not in 'images'"),
        ({"image_id": [1]}, r"the wrong image_id \[1\]: it must be a whole number or a text"),
        ({"iscrowd": "yes"}, "the wrong iscrowd 'yes': it must be 0 or 1"),
        ({"iscrowd": 2}, "the wrong iscrowd 2"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, changes, message):
    content = coco_content(annotation(8, [1, 1, 2, 2]), {**annotation(9, [1, 1, 2, 2]), **changes})
    with pytest.raises(UserError, match=rf"train\.json: .*{message}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("images", {"file_name": "../1.png"}, r"the wrong file_name '../1.png': it must be a path relative to"),
        ("images", {"file_name": "/etc/1.png"}, "the wrong file_name '/etc/1.png'"),
        ("images", {"file_name": ""}, "the wrong file_name ''"),
        ("images", {"file_name": "x\0.png"}, "the wrong file_name"),
        ("images", {"file_name": "\ud800.png"}, "the wrong file_name"),
        ("images", {"file_name": "x" * 5000}, "image 1 is .*xxx, which does not exist"),
        ("images", {"file_name": "x/" * 5000 + "y"}, "image 1 is .*, which does not exist"),
        ("images", {"file_name": "gone.png"}, r"image 1 is .*gone.png, which does not exist"),
        ("images", {"width": 0}, "the wrong width 0: it must be a whole number of pixels"),
        ("images", {"height": "ten"}, "id 1 in 'images' has the wrong height 'ten'"),
        ("images", {"height": 10**30}, "id 1 in 'images' has the wrong height 1000"),
        ("images", {"id": 5}, "two entries in 'images' have the id 5"),
        ("categories", {"id": "a"}, "id 'a' in 'categories' has the wrong id 'a'"),
    ],
)
def test_a_bad_image_or_category_is_named(tmp_path, section, changes, message):
    content = coco_content()
    file = write_coco(tmp_path, content)
    content[section][0] |= changes
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=rf"train\.json: .*{message}.*validate_data\.py`"):
        coco_format.read_coco(file, tmp_path / "train")


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_a_missing_key_is_named(tmp_path, section):
    content = coco_content(annotation(1, [1, 1, 2, 2]))
    file = write_coco(tmp_path, content)
    for number, key in enumerate(coco_format.KEYS[section], 1):
        broken = json.loads(json.dumps(content))
        del broken[section][-1][key]
        file.write_text(json.dumps(broken), "utf-8")
        os.utime(file, ns=(number, number))
        with pytest.raises(UserError, match=rf"train\.json: .*in '{section}' has no '{key}'"):
            coco_format.read_coco(file, tmp_path / "train")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"images": [}', '{"images": [1,]}', "{1: 2}", '{"a": 1} x', '{"a" 1}', "\0", '{"a": 1,}']
)
def test_what_is_no_json_object_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"x\.json is no JSON object \(.+\): export the annotations again"):
        list(stream(path))


def test_every_truncation_of_a_file_is_refused(tmp_path):
    text = json.dumps(coco_content(annotation(1, [1.25, 1, 2, 2], segmentation=[SQUARE])))
    path = tmp_path / "x.json"
    for length in range(len(text)):
        path.write_text(text[:length], "utf-8")
        with pytest.raises(UserError, match="is no JSON object"):
            list(stream(path))
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match="is no JSON object"):
        list(stream(path))
    with pytest.raises(UserError, match="does not exist"):
        list(stream(tmp_path / "gone.json"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    content=st.dictionaries(st.text(), values, max_size=5), chunk=st.integers(1, 9), indent=st.sampled_from([None, 1])
)
def test_streamed_json_equals_parsed_json(tmp_path_factory, content, chunk, indent):
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_text(json.dumps(content, indent=indent), "utf-8")
    before, format_files.CHUNK = format_files.CHUNK, chunk
    try:
        found = list(stream(path))
    finally:
        format_files.CHUNK = before
    expected = [(key, x) for key, value in content.items() for x in (value if isinstance(value, list) else [value])]
    assert found == expected


def test_a_changed_file_is_read_again(tmp_path):
    first = coco_content(annotation(1, [1, 1, 2, 2]))
    assert len(read(tmp_path, first).labels(0)) == 1
    file = write_coco(tmp_path, coco_content())
    os.utime(file, ns=(1, 1))
    assert len(coco_format.read_coco(file, tmp_path / "train").labels(0)) == 0


def test_an_image_of_another_size_than_annotated_is_refused_when_it_is_read(tmp_path):
    scenes = read(tmp_path, coco_content(annotation(1, [1, 1, 2, 2])))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (20, 10)).save(tmp_path / "train" / "1.png", exif=exif)
    with pytest.raises(UserError, match=r"1\.png: it has 10 x 20 pixels .* annotations are for 20 x 10"):
        scenes.read(0)


LONGER = mask.encode(np.zeros((20, 20), np.uint8, order="F"))["counts"].decode()


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        ([[]], ""),
        ([[], []], ""),
        ({}, ""),
        ([[1, 1, 2, 2]], "where an outline has 2 points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "where an outline does not consist of pairs of numbers"),
        ([[1, 1, 2, 2, 3, "x"]], "where an outline does not consist of pairs of numbers"),
        ([[1, 1, 2, 2, 3, float("inf")]], "where an outline does not consist of pairs of numbers"),
        ([1, 1, 2, 2, 3, 3], "where the segmentation is neither"),
        ({"size": [10, 20], "counts": [5, 3]}, "where a run-length code has no size that its counts fill"),
        ({"size": [10, 20], "counts": [2**40, 200 - 2**40]}, "where a run-length code has no size"),
        ({"size": [10, 20], "counts": [-1, 201]}, "where a run-length code has no size"),
        ({"size": [10, 20], "counts": LONGER}, "where a run-length code has no size that its counts fill"),
        ({"size": [10, 20], "counts": "oooooooooooooooo"}, "where a run-length code has no size"),
        ({"size": [10**10, 1], "counts": [10**10]}, "where a run-length code has no size"),
        ({"size": [10, 20]}, "where a run-length code has no size"),
        ({"size": [5, 5], "counts": [25]}, r"where a run-length code has the size \[5, 5\] and its image \[10, 20\]"),
    ],
)
def test_an_outline_of_no_use_stops_nothing_but_segmentation(tmp_path, caplog, outline, reason):
    good = annotation(8, [2, 2, 6, 6], segmentation=[SQUARE])
    with caplog.at_level(logging.WARNING):
        scenes = read(tmp_path, coco_content(good, annotation(9, [1, 1, 2, 2], segmentation=outline)))
    assert scenes.read(0).boxes.tolist() == [[2, 2, 8, 8], [1, 1, 3, 3]]
    assert not scenes.has_outlines
    assert "1 of 2 objects have no outline, such as annotation 9" in caplog.text
    cfg = configuration("coco_folder", tmp_path)
    cfg.task = "segmentation"
    with pytest.raises(UserError, match=rf"needs an outline .*such as annotation 9 of .*train\.json.*{reason}"):
        load_task("segmentation").check(cfg, scenes)


def test_a_part_of_two_points_is_left_out_of_an_outline(tmp_path):
    rows = [annotation(1, [2, 2, 6, 6], segmentation=[[3, 3, 4, 4], SQUARE, []])]
    sample = read(tmp_path, coco_content(*rows)).read(0)
    assert sample.masks.sum() == 36


def test_ids_and_flags_may_be_of_another_type(tmp_path):
    content = coco_content(
        annotation("1", [1, 1, 2, 2], image_id="5", category_id=90.0, iscrowd="0"),
        annotation(2.0, [1, 1, 3, 3], image_id=1.0, category_id="7", iscrowd=True),
        annotation(3, [1, 1, 3, 3], iscrowd=None),
    )
    content["images"] = [{**entry, "width": "20", "height": 10.0} for entry in content["images"]]
    content["categories"][0]["id"] = "7"
    scenes = read(tmp_path, content)
    first, second = scenes.read(1), scenes.read(0)
    if first.image_id == 1:
        first, second = second, first
    assert (first.labels.tolist(), first.crowd.tolist(), first.image_id) == ([2], [False], 5)
    assert (second.labels.tolist(), second.crowd.tolist(), second.image_id) == ([1, 0], [True, False], 1)


def test_roboflows_category_of_the_project_is_no_class(tmp_path):
    names = [(0, "pets", "none"), (3, "cat", "pets"), (7, "pets", "pets")]
    categories = [{"id": id_, "name": name, "supercategory": above} for id_, name, above in names]
    content = coco_content(annotation(1, [1, 1, 2, 2]), categories=categories)
    assert read(tmp_path / "a", content).classes == ("cat", "pets")
    content["annotations"][0]["category_id"] = 0
    assert read(tmp_path / "b", content).classes == ("pets", "cat", "pets")  # it is a class after all
    for entry in categories:
        del entry["supercategory"]
    content["annotations"][0]["category_id"] = 3
    assert read(tmp_path / "c", content).classes == ("pets", "cat", "pets")


@pytest.mark.parametrize("far", [1e5, 1e8, 1e15, 1e300])
def test_far_coordinates_cost_nothing_and_the_near_part_is_drawn(tmp_path, far):
    rings = [[10.0, -far, far, -far, far, far, 10.0, far], [-far, 2.0, 5.0, 2.0, 5.0, 8.0, -far, 8.0]]
    rows = [annotation(k, [2, 2, 6, 6], segmentation=[ring]) for k, ring in enumerate(rings, 1)]
    masks = read(tmp_path, coco_content(*rows)).read(0).masks
    expected = np.zeros((2, 10, 20), bool)
    expected[0, :, 10:], expected[1, 2:8, :5] = True, True
    assert np.array_equal(masks, expected)


far_rings = st.lists(st.tuples(*[st.floats(-400, 400, width=32)] * 2), min_size=3, max_size=7)


@settings(max_examples=100, deadline=None)
@given(far_rings)
@example([(0.0, 0.0), (0.0, -117.0), (1.0, 173.0)])
def test_cut_off_outlines_equal_whole_ones(points):
    ring = np.array(points, np.float32)
    whole = mask.decode(mask.merge(mask.frPyObjects([np.round(ring.astype(float), 3).ravel().tolist()], 30, 40)))
    # where an edge crosses the border that it is cut at, pycocotools rounds once more: a steep edge moves by a column
    assert (rasterise([ring], 30, 40) != whole.astype(bool)).sum() <= 30


def test_deep_and_endless_values_are_refused(tmp_path):
    path = tmp_path / "x.json"
    for text in ('{"info": ' + "[" * 100_000, '{"info": ' + '{"a":' * 100_000, '{"images": [' + "9" * 10_000 + "]}"):
        path.write_text(text, "utf-8")
        with pytest.raises(UserError, match="is no JSON object"):
            list(stream(path))
    with pytest.raises(UserError, match="cannot be read"):
        list(stream(tmp_path))


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ("annotations/train.json", "train"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/train.json", "images"),
        ("annotations/everything.json", "images"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_layouts(tmp_path, files, folder):
    image(tmp_path / folder / "a.png")
    file = tmp_path / files
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert find_coco_splits(tmp_path) == {"train": (file, tmp_path / folder, None)}


def test_a_folder_without_training_annotations_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no COCO data set: put the images in .*train and the annotations in"):
        find_coco_splits(tmp_path)


def test_own_splits_are_used_and_numbered_as_in_training(tmp_path):
    write_coco(tmp_path, coco_content(annotation(1, [1, 1, 2, 2], category_id=90)))
    other = coco_content(annotation(1, [1, 1, 2, 2], category_id=4), categories=[{"id": 4, "name": "owl"}])
    write_coco(tmp_path, other, "val")
    cfg = configuration("coco_folder", tmp_path, test_fraction=0.0)
    train, val = build_dataset(cfg, "train"), build_dataset(cfg, "val")
    assert val.classes == train.classes == ("cat", "dog", "owl")
    assert (val.labels(0).tolist(), val.path(0).parent.name) == ([2], "val")
    write_coco(tmp_path, {**other, "categories": [{"id": 4, "name": "owls"}]}, "test")
    with pytest.raises(UserError, match=r"lack a class: Unknown class 'owls'. Did you mean owl\?"):
        build_dataset(cfg, "test")


def test_annotations_of_a_large_file_stay_small(tmp_path):
    """A sixth of COCO's density: the arrays must not hold an object for each annotation."""
    import tracemalloc

    annotations = Annotations()
    number = annotations.add_image(tmp_path / "a.png", 1, (640, 480))
    ring = np.random.default_rng(0).uniform(0, 400, 50).round(2).tolist()
    tracemalloc.start()
    for _ in range(20_000):
        annotations.add_object(number, (1, 2, 3, 4), 0, outline=[ring])
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 20_000 * 350
