"""Annotated images: what a sample promises, choosing images and classes, and the splits."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scene_files import SQUARE, annotation, coco_content, configuration, image, write_coco, write_yolo
from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.coco_format import find_coco_splits, read_coco
from src.kit.scenes.samples import Sample, Scenes, choose_scenes, concatenate, renumber_classes
from src.kit.splitting import SplitRule

CLASSES = ("cat", "dog", "owl")


def sample(**keys) -> Sample:
    whole = {
        "image": np.zeros((10, 20, 3), np.uint8),
        "boxes": np.array([[1, 2, 3, 4]], np.float32),
        "labels": np.array([0]),
        "crowd": np.array([False]),
    }
    return Sample(**{**whole, **keys})


def scenes(root: Path, *labels: list[int], size: tuple[int, int] = (20, 10)) -> Scenes:
    """An image for each list of class numbers; object k of an image is a square at x = k."""
    annotations = Annotations()
    for number, classes in enumerate(labels):
        path = image(root / f"{number}.png", size)
        annotations.add_image(path, number, size)
        for place, label in enumerate(classes):
            annotations.add_object(number, (place, 0, place + 2, 2), label, outline=[SQUARE])
    return Scenes(annotations.finish(root), CLASSES)


@pytest.mark.parametrize(
    "keys",
    [
        {"image": np.zeros((10, 20, 3), np.float32)},
        {"image": np.zeros((10, 20), np.uint8)},
        {"boxes": np.array([[1, 2, 3, 4]], np.float64)},
        {"boxes": np.array([[-1, 2, 3, 4]], np.float32)},
        {"boxes": np.array([[1, 2, 3, 11]], np.float32)},
        {"boxes": np.zeros((0, 4), np.float32)},
        {"labels": np.array([0], np.int32)},
        {"crowd": np.array([0])},
        {"masks": np.zeros((1, 20, 10), bool)},
        {"masks": np.zeros((1, 10, 20), np.uint8)},
        {"semantic": np.zeros((10, 20), np.int64)},
    ],
)
def test_a_sample_of_the_wrong_shape_or_type_cannot_be_made(keys):
    sample()
    with pytest.raises(AssertionError):
        sample(**keys)


def test_objects_may_be_added_in_any_order(tmp_path):
    annotations = Annotations()
    for number in range(3):
        annotations.add_image(image(tmp_path / f"{number}.png"), number, (20, 10))
    for owner, label in ((2, 0), (0, 1), (2, 2), (0, 0)):
        annotations.add_object(owner, (label, 0, label + 1, 1), label)
    found = Scenes(annotations.finish(tmp_path), CLASSES)
    assert [found.labels(index).tolist() for index in range(3)] == [[1, 0], [], [0, 2]]
    assert found.read(2).boxes[:, 0].tolist() == [0, 2]


def test_taking_images_and_classes(tmp_path):
    whole = scenes(tmp_path, [0, 1], [1], [], [2, 2, 0])
    part = whole.take(np.array([3, 0]))
    assert [part.labels(index).tolist() for index in range(2)] == [[2, 2, 0], [0, 1]]
    kept = whole.take_classes([2, 0])
    assert (kept.classes, len(kept)) == (("owl", "cat"), 2)
    assert [kept.labels(index).tolist() for index in range(2)] == [[1], [0, 0, 1]]
    assert kept.class_counts().tolist() == [2, 2]
    assert kept.has_classes().tolist() == [[False, True], [True, True]]
    assert kept.take_classes([1]).class_counts().tolist() == [2], "the dropped dogs do not come back as the last class"
    assert renumber_classes(kept, CLASSES).class_counts().tolist() == [2, 0, 2]
    read = kept.read(1)
    assert (read.image_id, read.labels.tolist(), read.masks.shape) == (3, [0, 0, 1], (3, 10, 20))
    again = kept.take_classes([1]).take(np.array([1]))
    assert (again.classes, again.labels(0).tolist(), again.read(0).boxes[0, 0]) == (("cat",), [0], 2)
    assert [whole.labels(index).tolist() for index in range(4)] == [[0, 1], [1], [], [2, 2, 0]]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png")]
)
def test_images_of_every_mode_and_of_mixed_sizes_become_rgb(tmp_path, mode, suffix):
    annotations = Annotations()
    for number, size in enumerate([(20, 10), (7, 31)]):
        path = image(tmp_path / f"{number}.{suffix}", size, mode)
        annotations.add_image(path, path.stem)
        annotations.add_object(number, (0.5, 0.5, 1, 1), 0, outline=[[0.5, 0.5, 1, 0.5, 1, 1]])
    found = Scenes(annotations.finish(tmp_path), CLASSES)
    first, second = found.read(0), found.read(1)
    assert (first.image.shape, second.image.shape) == ((10, 20, 3), (31, 7, 3))
    assert (first.boxes.tolist(), second.boxes.tolist()) == ([[10, 5, 20, 10]], [[3.5, 15.5, 7, 31]])


def test_boxes_that_just_touch_the_image_stay_sound(tmp_path, caplog):
    """Whatever is kept must satisfy Sample, in pixels and in fractions."""
    rng = np.random.default_rng(0)
    for size in (None, (20, 10)):
        annotations = Annotations()
        annotations.add_image(image(tmp_path / "a.png"), 0, size)
        edge = np.array([20, 10] if size else [1, 1])
        corners = rng.uniform(-0.2, 1.1, (500, 2)) * edge
        spans = 10 ** rng.uniform(-9, 0, (500, 2)) * edge
        for corner, span in zip(corners, spans, strict=True):
            annotations.add_object(0, (*corner, *(corner + span)), 0)
        with caplog.at_level(logging.WARNING):
            boxes = Scenes(annotations.finish(tmp_path), CLASSES).read(0).boxes
        assert 50 < len(boxes) < 500
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(caplog.records) == 2


def test_samples_are_the_same_from_several_threads(tmp_path):
    found = scenes(tmp_path, *[[number % 3] * (number % 4) for number in range(20)])
    alone = [found.read(index) for index in range(20)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(found.read, range(20)))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.masks, other.masks)


def test_splits_are_disjoint_stratified_and_repeatable(tmp_path):
    labels = {f"{number:03}": f"{number % 2} 0.5 0.5 0.5 0.5" if number < 30 else "" for number in range(40)}
    root = write_yolo(tmp_path, labels)
    cfg = configuration("yolo_folder", root)
    parts = {split: build_dataset(cfg, split) for split in ("train", "val", "test")}
    paths = [part.path(index) for part in parts.values() for index in range(len(part))]
    assert len(set(paths)) == len(paths) == 40
    assert [len(part) for part in parts.values()] == [24, 8, 8]
    assert [part.class_counts().tolist() for part in parts.values()] == [[9, 9], [3, 3], [3, 3]]
    again = build_dataset(cfg, "val")
    assert [again.path(index) for index in range(8)] == [parts["val"].path(index) for index in range(8)]


def test_groups_stay_together_and_folds_cover_everything(tmp_path):
    root = write_yolo(tmp_path, {f"film{number // 4}-{number}": "0 0.5 0.5 0.5 0.5" for number in range(24)})
    cfg = configuration("yolo_folder", root, group_pattern="(film[0-9]+)-[0-9]+", val_fraction=0.25, test_fraction=0.25)
    films = {}
    for split in ("train", "val", "test"):
        part = build_dataset(cfg, split)
        films[split] = {part.path(index).stem.split("-")[0] for index in range(len(part))}
    assert sum(map(len, films.values())) == len(set.union(*films.values())) == 6
    validated = []
    for fold in (1, 2, 3):
        cfg = configuration("yolo_folder", root, fold=fold, folds=3, test_fraction=0.0)
        val = build_dataset(cfg, "val")
        validated += [val.path(index) for index in range(len(val))]
    assert len(set(validated)) == len(validated) == 24


def test_the_folders_above_the_data_are_no_groups(tmp_path):
    labels = {f"film{number // 4}-{number}": "0 0.5 0.5 0.5 0.5" for number in range(24)}
    root = write_yolo(tmp_path / "film9-of-mine", labels)
    part = build_dataset(configuration("yolo_folder", root, group_pattern="film[0-9]+", val_fraction=0.5), "val")
    assert {part.path(index).stem.split("-")[0] for index in range(len(part))} < {f"film{n}" for n in range(6)}


def both_parts(root: Path, second: dict[int, str] | None = None) -> None:
    """A COCO folder with its own val: 24 training images and 12 others, of one to three classes each."""
    for split, count, names in (("train", 24, {3: "cat", 7: "dog", 90: "owl"}), ("val", 12, second or {3: "cat"})):
        images = [
            {"id": number, "file_name": f"{split}{number}.png", "width": 20, "height": 10} for number in range(count)
        ]
        objects = [
            annotation(10 * number + place, [number % 9 + 1, 1, 4, 5], image_id=number, category_id=id_)
            for number in range(count)
            for place, id_ in enumerate(list(names)[: 1 + number % len(names)])
        ]
        outlined = [{**one, "segmentation": [SQUARE]} for one in objects]
        content = coco_content(*outlined, images=images, categories=[{"id": i, "name": n} for i, n in names.items()])
        write_coco(root, content, split)


def test_folds_divide_the_training_and_validation_images_together(tmp_path):
    both_parts(tmp_path, {5: "dog", 3: "cat"})  # other ids, another order, one class less
    whole = build_dataset(configuration("coco_folder", tmp_path), "train")
    assert len(build_dataset(configuration("coco_folder", tmp_path, test_fraction=0), "train")) == 24
    validated, counts, tests = [], [], set()
    for fold in (1, 2, 3):
        cfg = configuration("coco_folder", tmp_path, fold=fold, folds=3)
        train, val, test = (build_dataset(cfg, split) for split in ("train", "val", "test"))
        assert (train.classes, train.has_outlines) == (whole.classes, True)
        owners = [{part.path(index).name for index in range(len(part))} for part in (train, val, test)]
        assert sum(map(len, owners)) == len(set.union(*owners)) == 36
        validated += owners[1]
        counts.append(val.class_counts())
        tests.add(tuple(sorted(owners[2])))
    assert len(tests) == 1
    assert sorted([*validated, *tests.pop()]) == sorted(
        [f"train{number}.png" for number in range(24)] + [f"val{number}.png" for number in range(12)]
    )
    assert np.ptp(counts, axis=0).max() <= 1, "each fold has its share of every class"


def test_what_is_joined_reads_as_before(tmp_path):
    both_parts(tmp_path, {5: "dog", 3: "cat"})
    parts = {split: read_coco(*places) for split, places in find_coco_splits(tmp_path).items()}
    first, second = parts["train"], renumber_classes(parts["val"], parts["train"].classes)
    joined = concatenate(first, second)
    assert joined.class_counts().tolist() == (first.class_counts() + second.class_counts()).tolist()
    for index in range(36):
        one, other = joined.read(index), first.read(index) if index < 24 else second.read(index - 24)
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image", "boxes", "labels"))
        assert np.array_equal(one.masks, other.masks)
    second.flippable = False
    assert joined.flippable
    assert not concatenate(first, second).flippable
    assert not concatenate(second, first).flippable


def test_class_maps_of_other_ids_are_not_joined(tmp_path):
    both_parts(tmp_path, {7: "cat"})
    for split in ("train", "val"):
        (tmp_path / "class_maps" / split).mkdir(parents=True)
    with pytest.raises(UserError, match="The category id 7 is 'dog' in the training annotations and 'cat' in those"):
        build_dataset(configuration("coco_folder", tmp_path, fold=1, folds=3), "train")


def test_classes_can_be_chosen_and_no_image_left_is_an_error(tmp_path):
    root = write_yolo(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "1 0.5 0.5 0.5 0.5"})
    cfg = configuration("yolo_folder", root, val_fraction=0.0, test_fraction=0.0, classes=["dog"])
    found = build_dataset(cfg, "train")
    assert (found.classes, len(found), found.path(0).stem) == (("dog",), 1, "b")
    with pytest.raises(UserError, match=r"Unknown class in data.classes 'dgo'\. Did you mean dog"):
        build_dataset(configuration("yolo_folder", root, classes=["dgo"]), "train")


def test_own_parts_need_no_fractions(tmp_path):
    parts = {name: partial(scenes, tmp_path / name, *[[0]] * count) for name, count in (("train", 6), ("val", 2))}
    rules = [SplitRule(split, 0, val_fraction=0.2, test_fraction=0.5) for split in ("train", "val", "test")]
    sizes = {rule.name: len(choose_scenes(parts, lambda: CLASSES, rule, tmp_path)) for rule in rules}
    assert sizes == {"train": 3, "val": 2, "test": 3}
