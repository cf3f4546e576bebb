"""Class maps: what their ids mean, which of them are refused, that padding counts nowhere, and what the check says."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from checked_data import found, run
from scene_files import SQUARE, annotation, coco_content, configuration, write_coco
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.scenes import IGNORE, Scenes
from src.kit.scenes.loader import build_augmentation
from src.kit.training import load_task

COLUMNS = np.repeat(np.arange(4, dtype=np.uint8)[None], 10, axis=0).repeat(5, axis=1)  # (10, 20): 0, 1, 2, 3


def save(root: Path, ids: np.ndarray, mode: str | None = None, split: str = "train") -> None:
    """Class maps of images 1 and 5."""
    for number in (1, 5):
        path = root / "class_maps" / split / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(ids)
        (picture.convert(mode) if mode else picture).save(path)


def data(root: Path, ids: np.ndarray, categories: dict[int, str], mode: str | None = None) -> Path:
    """A COCO folder with class maps and no objects."""
    write_coco(root, coco_content(categories=[{"id": id_, "name": name} for id_, name in categories.items()]))
    save(root, ids, mode)
    return root


def build(root: Path, **keys: Any) -> Scenes:
    cfg = configuration("coco_folder", root, val_fraction=0.0, test_fraction=0.0, **keys)
    return build_dataset(OmegaConf.merge(cfg, {"task": "segmentation"}), "train")


def row(scenes: Scenes, index: int = 0) -> list[int]:
    """The first pixel of each of the four columns."""
    return scenes.as_class_maps().read(index).semantic[0, ::5].tolist()


def check(scenes: Scenes) -> None:
    load_task("segmentation").check(OmegaConf.create({"task": "segmentation", "data": {"name": "x"}}), scenes)


def test_id_0_is_the_background_unless_it_is_a_category(tmp_path):
    binary = build(data(tmp_path / "a", (COLUMNS > 1).astype(np.uint8), {1: "nucleus"}))
    assert binary.pixel_classes == ("background", "nucleus")
    assert row(binary) == [0, 0, 1, 1]
    zero = build(data(tmp_path / "b", COLUMNS, {0: "sky", 2: "road"}))
    assert zero.pixel_classes == ("sky", "road")
    assert row(zero) == [0, IGNORE, 1, IGNORE]
    other = build(data(tmp_path / "c", COLUMNS, {3: "cat", 1: "dog"}))
    assert other.pixel_classes == ("background", "dog", "cat")
    assert row(other) == [0, 1, IGNORE, 2]
    for scenes in (binary, zero, other):
        check(scenes)
        assert scenes.read(0).semantic is None, "only segmentation reads class maps"


def test_classes_that_are_left_out_are_ignored(tmp_path):
    scenes = build(data(tmp_path, COLUMNS, {1: "cat", 2: "dog", 3: "owl"}), classes=["owl", "cat"])
    assert scenes.pixel_classes == ("background", "cat", "owl")
    assert row(scenes) == [0, 1, IGNORE, 2]


@pytest.mark.parametrize("mode", ["L", "P", "I", "I;16"])
def test_ids_of_every_kind_of_picture(tmp_path, mode):
    scale = 1 if mode in "LP" else 300
    root = data(tmp_path, COLUMNS.astype(np.int32) * scale if scale > 1 else COLUMNS, {2 * scale: "cat", 70_000: "far"})
    if mode == "P":
        for path in (root / "class_maps").rglob("*.png"):
            picture = Image.fromarray(COLUMNS, "P")
            picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
            picture.save(path)
    if mode == "I;16":
        save(root, (COLUMNS.astype(np.uint16) * scale))
    assert row(build(root)) == [0, IGNORE, 1, IGNORE]
    assert ("map_palette" in found("coco_folder", root, "segmentation")) == (mode == "P")


def test_one_bit_maps(tmp_path):
    root = data(tmp_path, COLUMNS > 1, {1: "nucleus"})
    assert Image.open(root / "class_maps/train/1.png").mode == "1"
    assert row(build(root)) == [0, 0, 1, 1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_pictures_in_colour_are_refused_and_reported(tmp_path, mode):
    root = data(tmp_path, COLUMNS, {1: "cat"}, mode)
    with pytest.raises(UserError, match=rf"class_maps.train.1\.png is a picture of the mode {mode} and must hold"):
        check(build(root))
    findings = run("coco_folder", root, "segmentation").findings
    assert [(each.kind, each.path) for each in findings if each.severity == "error"] == [
        ("map_unreadable", "train/1.png"),
        ("map_unreadable", "train/5.png"),
    ]
    assert "errors" not in {each.severity for each in run("coco_folder", root).findings}, "detection needs no maps"


@pytest.mark.parametrize(
    ("ids", "categories", "message"),
    [
        (
            COLUMNS * 255,
            {1: "a", 2: "b"},
            r"No pixel of the class maps is of a class: the maps hold 0, 25\d.*1 \(a\), 2",
        ),
        (COLUMNS * 0 + 255, {1: "a"}, "No pixel of the class maps is of a class: the maps hold 255"),
        (COLUMNS * 0, {1: "a"}, "No pixel of the class maps is of a class: the maps hold 0"),
        (COLUMNS * 0, {0: "a"}, "one class a with the id 0 and no background"),
        (
            np.where(np.eye(10, 20) * np.arange(20) == 7, 1, 255).astype(np.uint8),
            {1: "a"},
            r"Only 0\.50% of the pix",
        ),
    ],
)
def test_maps_that_teach_nothing_are_refused_and_reported(tmp_path, ids, categories, message):
    root = data(tmp_path, ids, categories)
    with pytest.raises(UserError, match=message):
        check(build(root))
    if len(categories) == 1 and 0 in categories:
        return  # not the maps' fault
    (finding,) = [each for each in run("coco_folder", root, "segmentation").findings if each.kind == "map_useless"]
    assert finding.severity == "error"
    assert finding.sentence.startswith(message[:8].replace("\\", ""))


def test_one_image_of_many_with_the_class_is_enough(tmp_path):
    content = coco_content(categories=[{"id": 1, "name": "cat"}])
    content["images"] = [{"id": k, "file_name": f"{k}.png", "width": 20, "height": 10} for k in range(70)]
    write_coco(tmp_path, content)
    for number in range(70):
        path = tmp_path / "class_maps" / "train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLUMNS * (number == 69) // 3).save(path)
    scenes = build(tmp_path)
    check(scenes)
    assert [len(scenes.labels(index)) for index in (0, 69)] == [0, 1]
    with pytest.raises(UserError, match="No pixel of the class maps"):
        check(scenes.take(np.arange(69)))


def test_ids_of_no_class_and_ignored_pixels_are_counted(tmp_path, caplog):
    ids = np.where(COLUMNS == 3, 255, COLUMNS).astype(np.uint8)
    root = data(tmp_path, ids, {1: "cat"})
    with caplog.at_level(logging.WARNING):
        check(build(root))
    assert "50.0 % of the pixels of the class maps are ignored; 2 are no class" in caplog.text
    findings = {each.kind: each for each in run("coco_folder", root, "segmentation").findings}
    assert findings["map_unknown"].sentence == "25.00% of the pixels have the ids 2; the classes have 1."
    assert findings["map_ignored"].sentence == "50.0% of the pixels are ignored, 25.0% background."
    data(tmp_path / "few", np.where(COLUMNS == 3, 255, COLUMNS).astype(np.uint8), {1: "cat", 2: "dog"})
    few = run("coco_folder", tmp_path / "few", "segmentation").findings
    assert [(each.kind, each.severity) for each in few if each.kind.startswith("map")] == [("map_partly", "note")]


def test_maps_that_are_missing_damaged_or_of_another_size(tmp_path):
    root = data(tmp_path, COLUMNS, {1: "cat"})
    first, second = (root / "class_maps" / "train" / f"{number}.png" for number in (1, 5))
    scenes = build(root).as_class_maps()
    Image.fromarray(COLUMNS[:5]).save(first)
    second.unlink()
    with pytest.raises(UserError, match=r"class map .*1\.png has 20 x 5 pixels, its image 20 x 10"):
        scenes.read(0)
    with pytest.raises(UserError, match=r"Cannot read the class map .*5\.png"):
        scenes.read(1)
    assert found("coco_folder", root, "segmentation")["map_missing"] == 1
    assert found("coco_folder", root, "segmentation")["map_unreadable"] == 1
    second.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"Cannot read the class map .*5\.png"):
        scenes.read(1)
    assert found("coco_folder", root, "segmentation")["map_unreadable"] == 2


def test_maps_for_some_splits_only_are_refused_by_segmentation(tmp_path):
    root = data(tmp_path, COLUMNS, {1: "cat"})
    write_coco(root, coco_content(categories=[{"id": 1, "name": "cat"}]), "val")
    with pytest.raises(UserError, match="class_maps has no class maps for val: add them, or remove the folder"):
        build(root)
    assert "structure" in found("coco_folder", root, "segmentation")
    assert len(build_dataset(configuration("coco_folder", root, test_fraction=0.0), "train")) == 2, "detection reads it"


def test_images_of_one_name_in_two_folders_have_their_own_maps(tmp_path):
    content = coco_content(categories=[{"id": 1, "name": "cat"}])
    for entry, name in zip(content["images"], ("a/x.png", "b/x.png"), strict=True):
        entry["file_name"] = name
    write_coco(tmp_path, content)
    for name, ids in (("a", COLUMNS * 0), ("b", COLUMNS)):
        path = tmp_path / "class_maps" / "train" / name / "x.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(ids).save(path)
    assert [row(build(tmp_path), index) for index in (0, 1)] == [[0, 0, 0, 0], [0, 1, IGNORE, IGNORE]]


def test_classes_of_images_without_objects_are_those_of_their_maps(tmp_path):
    root = data(tmp_path, COLUMNS, {1: "cat", 2: "dog", 9: "owl"})
    Image.fromarray(COLUMNS // 3).save(root / "class_maps" / "train" / "5.png")
    scenes = build(root)
    assert scenes.has_classes().tolist() == [[True, True, False], [True, False, False]]
    assert scenes.class_counts().tolist() == [2, 1, 0]
    assert len(build(root, classes=["dog"])) == 1


def test_more_classes_than_numbers_are_refused(tmp_path):
    names = {number: f"c{number}" for number in range(1, 256)}
    content = coco_content(
        annotation(1, [2, 2, 6, 6], category_id=255, segmentation=[SQUARE]),
        categories=[{"id": id_, "name": name} for id_, name in names.items()],
    )
    write_coco(tmp_path, content)
    with pytest.raises(
        UserError, match="has 255 classes, and class maps can number 254: choose some of them with data"
    ):
        check(build(tmp_path))
    scenes = build(tmp_path, classes=list(names.values())[1:])
    check(scenes)
    assert scenes.as_class_maps().read(0).semantic.max() == 254


@pytest.mark.parametrize("name", ["none", "basic", "advanced"])
def test_padding_is_ignored_whether_maps_or_outlines_are_given(tmp_path, name):
    whole = [0, 0, 20, 0, 20, 10, 0, 10]
    content = coco_content(
        annotation(1, [0, 0, 20, 10], segmentation=[whole]),
        annotation(2, [0, 0, 20, 10], image_id=5, segmentation=[whole]),
    )
    write_coco(tmp_path / "a", content)
    write_coco(tmp_path / "b", content)
    save(tmp_path / "b", COLUMNS * 0 + 3)
    for root in ("a", "b"):
        scenes = build(tmp_path / root).as_class_maps()
        augment = build_augmentation(name, 32, scenes.flippable)
        for seed in range(1 if name == "none" else 20):
            moved = augment(scenes.read(0), np.random.default_rng(seed))
            assert set(np.unique(moved.semantic)) <= {1, IGNORE}, "the whole image is a cat, so nothing is background"
            assert moved.masks is None
        if name == "none":
            assert (moved.semantic == IGNORE).mean() == 0.5
    batch = next(iter(load_task("segmentation").build_loader(loader_keys(name), build(tmp_path / "a"), "val")))
    assert set(np.unique(batch[1])) <= {1, IGNORE}


def loader_keys(augment: str) -> Any:
    cfg = configuration("coco_folder", Path(), image_size=32, batch_size=1, augment=augment, sizes=None, num_workers=0)
    more = {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "sampler": "none",
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "cache": "none",
    }
    trainer = {"limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_test_batches": 1.0}
    return OmegaConf.merge(cfg, {"task": "segmentation", "data": more, "trainer": trainer, "loader": {}})


def test_a_category_0_in_the_annotations_of_objects_has_a_background(tmp_path):
    content = coco_content(
        annotation(1, [2, 2, 6, 6], category_id=0, segmentation=[SQUARE]), categories=[{"id": 0, "name": "cat"}]
    )
    scenes = build(write_coco(tmp_path, json.loads(json.dumps(content))).parents[1])
    assert scenes.pixel_classes == ("background", "cat")
    assert set(np.unique(scenes.as_class_maps().read(0).semantic)) == {0, 1}
