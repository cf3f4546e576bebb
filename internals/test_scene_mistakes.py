"""Data, models, losses and keys that do not fit the task: one sentence, and no run folder."""

import json
from pathlib import Path

import pytest

from scene_files import SQUARE, annotation, coco_content, image, write_coco, write_yolo
from scripts.train import main
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.training import load_task


def refused(folder: Path, *overrides: str) -> str:
    """The sentence that training ends with; it leaves no run folder."""
    with pytest.raises(UserError) as caught:
        main([f"output_dir={(folder / 'runs').as_posix()}", "tracker=none", *overrides])
    assert not list(folder.glob("runs/*"))
    return str(caught.value)


@pytest.fixture
def photos(tmp_path) -> str:
    """COCO128's folders, with four photos in each."""
    root = tmp_path / "coco128"
    for folder in ("train2017", "val2017"):
        (root / "labels" / folder).mkdir(parents=True)
        for number in range(4):
            image(root / "images" / folder / f"{number}.jpg")
            (root / "labels" / folder / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.4 0.4\n", "utf-8")
    return f"data.root={root.as_posix()}"


def test_boxes_for_a_classifier(tmp_path, photos):
    sentence = refused(tmp_path, "data=coco128", photos)
    assert "task=classification learns from one class for each image" in sentence
    assert "data=coco128 has boxes or outlines" in sentence


@pytest.mark.parametrize("task", ["detection", "segmentation", "instance_segmentation"])
def test_one_class_an_image_for_a_detector(tmp_path, task):
    sentence = refused(tmp_path, f"task={task}", "data=digits")
    assert f"task={task} learns from boxes or outlines in each image, and data=digits has one class" in sentence


@pytest.mark.parametrize("task", ["segmentation", "instance_segmentation"])
def test_boxes_without_outlines(tmp_path, photos, task):
    sentence = refused(tmp_path, f"task={task}", "data=coco128", photos, "data.val_fraction=0.5")
    assert f"task={task} needs an outline for every object, and data=coco128 has only boxes" in sentence


def test_some_objects_without_outlines(tmp_path):
    rows = [annotation(1, [1, 1, 5, 5], segmentation=[SQUARE]), annotation(2, [1, 1, 5, 5])]
    for split in ("train", "val", "test"):
        write_coco(tmp_path / "data", coco_content(*rows), split)
    where = ["data=coco_folder", f"data.root={(tmp_path / 'data').as_posix()}"]
    assert "only boxes for some or all" in refused(tmp_path, "task=instance_segmentation", *where)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=detection", "model=resnet18"], "model=resnet18 is for task=classification, and the task is detection"),
        (["task=segmentation", "model=yolov10n"], "model=yolov10n is for task=detection, and the task is segm"),
        (["model=deeplab_resnet18"], "model=deeplab_resnet18 is for task=segmentation, and the task is classification"),
        (["task=detection", "loss=cross_entropy"], "loss=cross_entropy is for task=classification or tabular"),
        (["task=segmentation", "loss=network"], "loss=network is for task=detection or instance_segmentation"),
    ],
)
def test_what_belongs_to_other_tasks(tmp_path, photos, overrides, message):
    where = ["data=coco128", photos, "data.val_fraction=0.5"] if "task=" in overrides[0] else ["data=digits"]
    assert message in refused(tmp_path, *where, *overrides)


def test_a_class_id_beyond_the_names(tmp_path):
    root = write_yolo(tmp_path / "data", {"a": "0 0.5 0.5 0.4 0.4", "b": "7 0.5 0.5 0.4 0.4"})
    sentence = refused(tmp_path, "task=detection", "data=yolo_folder", f"data.root={root.as_posix()}")
    assert "b.txt" in sentence
    assert "7" in sentence


@pytest.mark.parametrize("task", ["segmentation", "instance_segmentation"])
def test_an_outline_of_two_points_is_named_where_outlines_are_needed(tmp_path, task):
    rows = [annotation(k, [1, 1, 5, 5], segmentation=[outline]) for k, outline in enumerate((SQUARE, [1, 1, 2, 2]), 1)]
    for split in ("train", "val", "test"):
        write_coco(tmp_path / "data", coco_content(*rows), split)
    where = ["data=coco_folder", f"data.root={(tmp_path / 'data').as_posix()}"]
    sentence = refused(tmp_path, f"task={task}", *where)
    assert f"needs an outline for every object, and {where[0]} has only boxes for some or all" in sentence
    assert "such as annotation 2 of" in sentence
    assert "where an outline has 2 points" in sentence


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"category_id": 11}, "11"),
        ({"bbox": [1, 2, 3]}, "four numbers"),
    ],
)
def test_annotations_that_cannot_be_meant(tmp_path, keys, message):
    content = coco_content(annotation(9, [1, 1, 5, 5], **keys))
    for split in ("train", "val", "test"):
        write_coco(tmp_path / "data", content, split)
    where = ["data=coco_folder", f"data.root={(tmp_path / 'data').as_posix()}"]
    assert message in refused(tmp_path, "task=detection", *where)


def test_classes_of_validation_that_training_lacks(tmp_path):
    write_coco(tmp_path / "data", coco_content(annotation(1, [1, 1, 5, 5])), "train")
    other = coco_content(annotation(1, [1, 1, 5, 5]))
    other["categories"].append({"id": 91, "name": "fish"})
    for split in ("val", "test"):
        write_coco(tmp_path / "data", json.loads(json.dumps(other)), split)
    sentence = refused(tmp_path, "task=detection", "data=coco_folder", f"data.root={(tmp_path / 'data').as_posix()}")
    assert "fish" in sentence


@pytest.mark.parametrize(
    "key", ["data.sampler=weighted", "data.mixup_alpha=0.2", "data.cutmix_alpha=1.0", "data.shift=2"]
)
@pytest.mark.parametrize("task", ["detection", "segmentation", "instance_segmentation"])
def test_keys_that_only_classification_heeds(photos, task, key):
    cfg = load_config([f"task={task}", "data=coco128", photos, "data.val_fraction=0.5", key])
    with pytest.raises(UserError, match=f"{key} is for task=classification"):
        load_task(task).build_loader(cfg, build_dataset(cfg, "train"), "train")


def test_images_that_cannot_be_combined(tmp_path, photos):
    sentence = refused(tmp_path, "task=detection", "data=coco128", photos, "data.copy_paste=0.3")
    assert sentence.startswith("data.copy_paste=0.3 needs an outline for every object, and data=coco128 has only boxes")
    write_coco(tmp_path / "data", coco_content(annotation(1, [1, 1, 5, 5], segmentation=[SQUARE])), "train")
    where = ["data=coco_folder", f"data.root={(tmp_path / 'data').as_posix()}"]
    for key in ("data.mixup=0.1", "data.copy_paste=0.3"):
        assert f"{key} is for objects: set it to 0." in refused(tmp_path, "task=segmentation", *where, key)
