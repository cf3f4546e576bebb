"""Splits: every part gets its share of every class or set of classes, and no group is in two parts."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, Split
from src.kit.scenes import read_yolo
from src.kit.splitting import SplitRule, group_by_pattern, split_by_fractions
from src.kit.training import Experiment
from src.kit.training.splits import (
    compare_splits,
    count_trained,
    describe_split,
    describe_splits,
    refuse_other_data,
    write_splits,
)


def multilabel(seed: int = 0, samples: int = 2000, classes: int = 20) -> np.ndarray:
    """Labels as unequal as COCO's: the most frequent is in half of the images, the rarest in a hundredth."""
    rng = np.random.default_rng(seed)
    return rng.random((samples, classes)) < np.geomspace(0.5, 0.01, classes)


def deviation(labels: np.ndarray, part: np.ndarray) -> float:
    """How far the labels' shares of a part are from those of the whole, on average, relative to the latter."""
    whole = labels.mean(axis=0)
    return float((np.abs(labels[part].mean(axis=0) - whole) / whole).mean())


def test_sets_of_classes_are_divided_far_better_than_by_chance():
    labels = multilabel()
    rest, val, test = split_by_fractions(labels, (0.2, 0.1), seed=0)
    assert sorted(np.concatenate([rest, val, test])) == list(range(len(labels)))
    assert len(val) == pytest.approx(400, abs=8)
    assert len(test) == pytest.approx(200, abs=8)
    by_chance = np.mean(
        [deviation(labels, np.random.default_rng(seed).permutation(2000)[: len(test)]) for seed in range(20)]
    )
    assert deviation(labels, test) < 0.05 < 0.2 < by_chance
    assert min(labels[test].sum(axis=0)) >= 1, "the rarest label is in every part"


def test_images_without_any_class_are_divided_too():
    labels = multilabel()
    labels[:1000] = False
    rest, val = split_by_fractions(labels, (0.25,), seed=1)
    assert (val < 1000).sum() == pytest.approx(250, abs=10)
    assert len(rest) + len(val) == 2000


def test_a_part_without_a_share_stays_empty():
    assert [len(part) for part in split_by_fractions(multilabel(), (0.0, 0.5), seed=0)][1] == 0


def test_no_group_is_in_two_parts_and_the_shares_hold():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 3000)
    targets = (groups + (rng.random(3000) < 0.3)) % 7  # a group is mostly of one class, as a patient's images are
    parts = split_by_fractions(targets, (0.2, 0.1), seed=0, groups=groups)
    seen = [set(groups[part]) for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert sum(map(len, parts)) == 3000
    for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
        assert len(part) / 3000 == pytest.approx(share, abs=0.03)
        assert np.abs(np.bincount(targets[part], minlength=7) / len(part) - np.bincount(targets) / 3000).max() < 0.08


@pytest.mark.parametrize("targets", [np.arange(300) % 3, multilabel(samples=300)])
@pytest.mark.parametrize("groups", [None, np.arange(300) // 4])
def test_the_seed_alone_decides(targets, groups):
    first, again, other = (split_by_fractions(targets, (0.3,), seed, groups)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("targets", [np.arange(30) % 3, multilabel(samples=30)])
def test_fractions_that_leave_nothing_are_refused(targets):
    with pytest.raises(UserError, match=r"0.5 \+ 0.5 must be 0 or more"):
        split_by_fractions(targets, (0.5, 0.5), seed=0)


def test_a_pattern_groups_files_by_what_it_finds():
    names = ["cat/p01_a.png", "cat/p01_b.png", "dog/p02_a.png"]
    assert group_by_pattern(names, r"(p\d+)_.").tolist() == [0, 0, 1], "the group alone counts, not the whole match"
    assert group_by_pattern(names, r"^\w+/").tolist() == [0, 0, 1]
    with pytest.raises(UserError, match=r"finds nothing in 'cat/x\.png'"):
        group_by_pattern([*names, "cat/x.png"], r"(p\d+)_")
    with pytest.raises(UserError, match="no regular expression"):
        group_by_pattern(names, "(p")


@pytest.mark.parametrize("folds", [None, 3])
def test_images_of_one_patient_stay_together_in_an_image_folder(tmp_path, folds):
    for name in ("ill", "well"):
        (tmp_path / name).mkdir()
        for number in range(30):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"patient{number // 3}-{number}.png")
    keys = [f"data.root={tmp_path.as_posix()}", "data.group_pattern=(patient[0-9]+)-[0-9]+", "data.image_size=8"]
    keys += [f"data.folds={folds}", "data.fold=2"] if folds else []
    cfg = load_config(["data=image_folder", *keys])
    splits = describe_splits(Experiment(cfg))
    patients = {name: {path.split("/")[1].split("-")[0] for path in part["ids"]} for name, part in splits.items()}
    assert sum(part["samples"] for part in splits.values()) == 60
    assert not patients["train"] & patients["val"]
    assert not (patients["train"] | patients["val"]) & patients["test"]


def test_a_pattern_for_data_without_files_is_refused():
    with pytest.raises(UserError, match=r"data\.group_pattern needs images in files, and data=digits has none"):
        build_dataset(load_config(["data.group_pattern=x"]), "train")


@pytest.mark.parametrize("keys", [{"fold": 1}, {"fold": 4, "folds": 3}])
def test_a_fold_that_does_not_exist_is_refused(keys):
    with pytest.raises(UserError, match=r"needs data\.folds=[14] or more, not (None|3)"):
        SplitRule("train", 0, val_fraction=0.2, **keys).choose(np.arange(30) % 3)


def test_saved_splits_tell_which_samples_were_used_and_whether_they_are_the_same(tmp_path):
    cfg = load_config([])
    splits = describe_splits(Experiment(cfg))
    write_splits(splits, tmp_path)
    saved = json.loads((tmp_path / "splits.json").read_text("utf-8"))
    assert saved == splits
    assert sorted(number for part in saved.values() for number in part["ids"]) == list(range(1797))
    assert compare_splits(describe_splits(Experiment(cfg)), tmp_path) == []
    refuse_other_data(splits, tmp_path)
    other = describe_splits(Experiment(load_config(["seed=1"])))
    assert compare_splits(other, tmp_path)[0] == "train (1,259 samples, now 1,259)"
    with pytest.raises(UserError, match=r"The data have changed since .* restore them, or start over with --from"):
        refuse_other_data(other, tmp_path)


def test_a_file_that_was_added_or_moved_to_another_class_is_seen(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / f"{number}.png")
    cfg = load_config(["data=image_folder", f"data.root={(tmp_path / 'data').as_posix()}"])
    splits = describe_splits(Experiment(cfg))
    assert all(part["ids"][0].startswith("a/") for part in splits.values()), "paths below data.root"
    write_splits(splits, tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "a" / "10.png")
    assert compare_splits(describe_splits(Experiment(cfg)), tmp_path)
    (tmp_path / "data" / "a" / "10.png").unlink()
    assert not compare_splits(describe_splits(Experiment(cfg)), tmp_path)


def test_data_of_another_kind_than_the_task_learns_from_are_one_sentence(tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / split / "0.png")
        (tmp_path / "labels" / split / "0.txt").write_text("0 0.5 0.5 0.5 0.5", "utf-8")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]", "utf-8")
    cfg = load_config(["data=yolo_folder", f"data.root={tmp_path.as_posix()}"])
    assert len(build_dataset(cfg, "train")) == 1
    with pytest.raises(UserError, match="task=classification learns from one class for each image, and data=yolo_f"):
        describe_splits(Experiment(cfg))


def test_the_ids_of_annotated_images_are_their_paths(tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / "train" / f"{number}.png")
    (tmp_path / "labels" / "train" / "1.txt").write_text("1 0.5 0.5 0.5 0.5", "utf-8")
    scenes = read_yolo(tmp_path / "images" / "train", tmp_path / "labels" / "train", ("cat", "dog"))
    first = describe_split(scenes, tmp_path)
    assert first["ids"] == [f"images/train/{number}.png" for number in range(3)]
    (tmp_path / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5", "utf-8")
    relabelled = read_yolo(tmp_path / "images" / "train", tmp_path / "labels" / "train", ("cat", "dog"))
    assert describe_split(relabelled, tmp_path)["sha256"] != first["sha256"]


def test_a_publishers_test_split_has_numbers_of_its_own(tmp_path):
    """Whose test samples are numbered from 0, as its training samples are."""
    images = ArrayImages(np.zeros((9, 4, 4, 1), np.uint8), 4)

    def split(name: str, numbers: range) -> Split:
        return Split(images, np.zeros(9, np.int64), ("a",), ids=np.array(numbers)[:9])

    data = {"name": "mnist", "root": "."}
    splits = {"train": split("train", range(9)), "test": split("test", range(9))}
    (tmp_path / "config.yaml").write_text("data: {name: mnist, root: .}", "utf-8")
    write_splits({name: describe_split(each, Path()) for name, each in splits.items()}, tmp_path)
    experiment = SimpleNamespace(cfg=OmegaConf.create({"data": data}), split=splits.get)
    assert count_trained(experiment, tmp_path, "test") == 0
    splits["test"] = split("test", range(5, 14))
    assert count_trained(experiment, tmp_path, "test") == 4
