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
from src.kit.mini import create_mini_dataset
from src.kit.scenes import IGNORE, Scenes
from src.kit.scenes.augmentation import build_augmentation
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
    assert other.as_class_maps().pixel_counts(1).tolist() == [50] * 3, "of one of two images, without what is ignored"
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
    with pytest.raises(UserError, match=rf"class_maps.train.1\.png: it is a picture of the mode {mode} and must hold"):
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
    with pytest.raises(UserError, match=r"1\.png: it has 20 x 5 pixels, its image 20 x 10"):
        scenes.read(0)
    with pytest.raises(UserError, match=r"2 of 2 images cannot be read.*\n.*\n.*5\.png: "):
        scenes.read(1)
    assert found("coco_folder", root, "segmentation")["map_missing"] == 1
    assert found("coco_folder", root, "segmentation")["map_unreadable"] == 1
    second.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"class_maps.train.5\.png: "):
        build(root).as_class_maps().read(1)
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
        augment = build_augmentation(name, scenes.flippable)
        for seed in range(1 if name == "none" else 20):
            moved = augment(scenes.read(0), np.random.default_rng(seed), (32, 32))
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
        "shift": None,
        "border": "black",
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


RED, BLUE = (200, 0, 0), (0, 0, 255)


def mask_folder(root: Path, table: str, picture: np.ndarray, ending: str = ".png", stems: str = "ab") -> Path:
    """images/ and masks/ of 20 x 10 pixels, and classes.csv."""
    for number, stem in enumerate(stems):
        path = root / "images" / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (10, 20, 3), np.uint8)).save(path)
        mask = root / "masks" / f"{stem}{ending}"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(mask)
    (root / "classes.csv").write_text(table, "utf-8")
    return root


def build_masks(root: Path, split: str = "train", **keys: Any) -> Scenes:
    cfg = configuration("mask_folder", root, **({"val_fraction": 0.0, "test_fraction": 0.0} | keys))
    return build_dataset(OmegaConf.merge(cfg, {"task": "segmentation"}), split)


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[COLUMNS]


@pytest.mark.parametrize("ending", [".png", "_mask.png", ".bmp", "_segmentation.tif", "_L.gif"])
def test_masks_of_ids(tmp_path, ending):
    root = mask_folder(tmp_path, "id,name\n3,cat\n1,dog\n", COLUMNS, ending)
    scenes = build_masks(root)
    assert scenes.pixel_classes == ("background", "cat", "dog")
    assert [row(scenes, index) for index in range(2)] == [[0, 2, IGNORE, 1]] * 2
    check(scenes)
    kinds = found("mask_folder", root, "segmentation")
    assert {kind for kind in kinds if "map" in kind} == {"map_unknown", "map_partly"}
    assert run("mask_folder", root, "segmentation").source.counts["train"] == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("table", "black"),
    [
        ("name,r,g,b\ncat,200,0,0\nsea,0,0,255\n", "background"),
        ("Name; Red; Green; Blue\nvoid; 0; 0; 0\ncat; 200; 0; 0\nsea; 0; 0; 255\n", "void"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_of_colours(tmp_path, table, black, mode):
    root = mask_folder(tmp_path, table, coloured((0, 0, 0), RED, BLUE, (1, 1, 1)))
    for path in (root / "masks").iterdir():
        picture = Image.open(path).convert("RGB")
        (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(path)
    scenes = build_masks(root)
    assert scenes.pixel_classes == (black, "cat", "sea")
    assert row(scenes) == [0, 1, 2, IGNORE]
    findings = run("mask_folder", root, "segmentation").findings
    assert [each.sentence for each in findings if each.kind == "map_unknown"] == [
        "25.00% of the pixels have the ids #010101; the classes have "
        + ("#000000, #c80000, #0000ff." if black == "void" else "#c80000, #0000ff.")
    ]


def test_binary_masks_of_0_and_255(tmp_path):
    root = mask_folder(tmp_path, "name,id\nobject,255\n", (COLUMNS > 1).astype(np.uint8) * 255)
    assert row(build_masks(root)) == [0, 0, 1, 1]


def test_splits_of_masks_and_those_that_are_cut(tmp_path):
    mask_folder(tmp_path / "own" / "train", "", COLUMNS)
    mask_folder(tmp_path / "own" / "valid", "", COLUMNS, stems="c")
    (tmp_path / "own" / "class_dict.csv").write_text("name,id\ncat,1\ndog,2\n")
    assert [len(build_masks(tmp_path / "own", split)) for split in ("train", "val")] == [2, 1]
    inner = mask_folder(tmp_path / "inner", "name,id\ncat,1\n", COLUMNS)
    for name in ("images", "masks"):
        (inner / name).rename(tmp_path / name)
        (inner / name).mkdir()
        (tmp_path / name).rename(inner / name / "train")
    assert len(build_masks(inner)) == 2
    root = mask_folder(tmp_path / "cut", "name,id\ncat,1\n", COLUMNS, stems="abcdefghij")
    assert [len(build_masks(root, split, val_fraction=0.2)) for split in ("train", "val")] == [8, 2]
    assert len(build_masks(root, fold=1, folds=5)) == 8


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "must have the columns name and id, or name, r, g and b, and a row for each class"),
        ("id,name\n", "and a row for each class"),
        ("cat,1\ndog,2\n", "must have the columns"),
        ("id,name\nx,cat\n", "row 2: 'x, cat' must be a name and an id from 0 to 65535"),
        ("id,name\n-1,cat\n", "must be a name and an id"),
        ("id,name\n1\n", "must be a name and an id"),
        ("id,name\n1,cat\n1,dog\n", "row 3: '1, dog' has a name or an id from 0 to 65535 of another row"),
        ("id,name\n1,cat\n2,cat\n", "row 3: '2, cat' has a name"),
        ("name,r,g,b\ncat,1,2,256\n", "must be a name and a colour of three numbers from 0 to 255"),
        ("name,r,g,b\ncat,1,2\n", "must be a name and a colour"),
        ('id,name\n1,"' + "x" * 200_000 + '"\n', "cannot be read as a CSV file"),
    ],
)
def test_a_wrong_table_is_refused_and_reported(tmp_path, table, message):
    root = mask_folder(tmp_path, table, COLUMNS)
    with pytest.raises(UserError, match=rf"classes\.csv.*{message}"):
        build_masks(root)
    assert found("mask_folder", root, "segmentation")["structure"] == 1


def test_without_a_table_the_message_says_what_the_masks_hold(tmp_path):
    for name, picture, said in (
        ("ids", COLUMNS, "the ids 0, 1, 2, 3"),
        ("rgb", coloured(*[RED] * 4), "the colours #c8"),
    ):
        root = mask_folder(tmp_path / name, "", picture)
        (root / "classes.csv").unlink()
        with pytest.raises(UserError, match=f"does not exist: write the columns name and id, .* masks hold {said}"):
            build_masks(root)


def test_images_and_masks_that_do_not_belong_together(tmp_path):
    root = mask_folder(tmp_path, "id,name\n1,cat\n", COLUMNS, stems="abc")
    (root / "masks" / "a.png").rename(root / "masks" / "x.png")
    (root / "masks" / "b.png").rename(root / "masks" / "b.jpg")
    with pytest.raises(
        UserError, match=r"2 of 3 images in .* have no mask in .*, such as a\.jpg: add a mask of the same"
    ):
        build_masks(root)
    kinds = found("mask_folder", root, "segmentation")
    assert (kinds["map_missing"], kinds["label_without_image"]) == (2, 2)
    with pytest.raises(UserError, match="holds no images with masks"):
        build_masks(tmp_path / "images")


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_masks_are_no_boxes(tmp_path, task):
    scenes = build_masks(mask_folder(tmp_path, "id,name\n1,cat\n", COLUMNS))
    cfg = OmegaConf.create({"task": task, "data": {"name": "mask_folder"}})
    with pytest.raises(
        UserError, match=f"task={task} needs a box for every object, and data=mask_folder has class maps"
    ):
        load_task(task).check(cfg, scenes)


def test_a_small_copy_of_a_mask_folder(tmp_path):
    root = mask_folder(tmp_path / "a", "id,name\n1,cat\n3,dog\n", COLUMNS, "_mask.png", stems="abcdefgh")
    mini = create_mini_dataset(root, 4, 0.5, tmp_path / "mini")
    for split in ("train", "val"):
        scenes = build_masks(mini, split)
        assert (len(scenes), scenes.classes) == (2, ("cat", "dog"))
        assert row(scenes) == [0, 1, IGNORE, 2]


def test_a_mask_moves_into_the_quarantine_with_its_image(tmp_path):
    root = mask_folder(tmp_path, "id,name\n1,cat\n", COLUMNS, stems="abc")
    Image.fromarray(COLUMNS[:5]).save(root / "masks" / "b.png")
    source = run("mask_folder", root, "segmentation").source
    assert source.companions("images/b.jpg") == ["masks/b.png"]
    coco = data(tmp_path / "coco", COLUMNS, {1: "cat"})
    assert run("coco_folder", coco, "segmentation").source.companions("train/1.png") == ["class_maps/train/1.png"]
