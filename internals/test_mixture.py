"""Several data sets as one: shares, class names, sizes and channels, and training on real digits and MNIST."""

import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading.images import to_channels
from src.kit.training import Experiment
from src.kit.training.splits import describe_splits
from tests.support import build_loader


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten red images of class "1", ten green ones of "seven"."""
    for name, colour in (("1", (200, 0, 0)), ("seven", (0, 200, 0))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (20, 12), colour).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def mix(*sources: dict, **keys: object):
    """The configuration of a mixture, as from the command line."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in keys.items()]
    cfg = load_config(["data=mixture", "data.image_size=8", *overrides])
    cfg.data.sources = OmegaConf.create(list(sources))
    return cfg


def test_the_command_line_takes_sources():
    cfg = load_config(["data=mixture", "data.sources=[{data: digits, weight: 0.5, classes: {1: one, 2: null}}]"])
    part = build_dataset(cfg, "val")
    assert part.classes == ("0", "one", "3", "4", "5", "6", "7", "8", "9")
    assert part.images.shape == (28, 28, 1)


def test_class_names_are_joined_and_null_drops_one(folder):
    digits = {"data": "digits", "classes": dict.fromkeys("23456890")}
    photos = {"data": "image_folder", "root": str(folder), "classes": {"seven": "7"}, "val_fraction": 0.2}
    train = build_dataset(mix(digits, photos), "train")
    assert train.classes == ("1", "7")
    alone = build_dataset(load_config([]), "train")
    ones, sevens = (alone.targets == 1).sum(), (alone.targets == 7).sum()
    assert len(train) == ones + sevens + 12  # a class of ten gives two images to val and two to test
    from_folder = train.images.owners() == 1
    images = train.images.get(np.flatnonzero(from_folder & (train.targets == 1)))
    assert images.shape == (6, 8, 8, 1)
    assert set(images.ravel()) == {117}, "the luma of (0, 200, 0)"
    assert train.images.get(np.flatnonzero(from_folder & (train.targets == 0)))[0, 0, 0, 0] == 60


def test_a_mixture_is_mirrored_only_if_every_source_may_be(folder):
    photos = {"data": "image_folder", "root": str(folder)}
    assert build_dataset(mix(photos, {**photos, "weight": 2}), "train").flippable
    assert not build_dataset(mix(photos, {"data": "digits"}), "train").flippable
    assert not build_dataset(mix({"data": "digits"}, photos), "train").flippable


def test_images_come_in_the_order_in_which_they_are_asked_for(folder):
    part = build_dataset(mix({"data": "digits"}, {"data": "image_folder", "root": str(folder)}), "train")
    digits = build_dataset(load_config([]), "train")
    indices = np.array([len(part) - 1, 5, len(digits) + 1, 0, 5])
    images = part.images.get(indices)
    assert np.array_equal(images[[1, 3, 4]], digits.images.get(np.array([5, 0, 5])))
    assert images[0].min() == images[0].max() > 0
    shuffled = part.take(indices)
    assert np.array_equal(shuffled.images.get(np.arange(5)), images)
    assert np.array_equal(shuffled.targets, part.targets[indices])
    assert shuffled.ids[1] == f"digits/{digits.ids[5]}"
    assert shuffled.ids[0].startswith("image_folder/seven/")


def test_weights_decide_how_often_each_source_is_drawn(folder):
    sources = {"data": "digits", "weight": 3}, {"data": "image_folder", "root": str(folder), "weight": 1}
    cfg = mix(*sources, data__batch_size=32)
    train = build_dataset(cfg, "train")
    loader = build_loader(cfg, train, "train")
    order = train.images.epoch_order(np.random.default_rng(0))
    owners = train.images.owners()
    assert len(order) == len(train)
    assert np.bincount(owners[order]).tolist() == pytest.approx([0.75 * len(train), 0.25 * len(train)], abs=1)
    assert len(np.unique(order[owners[order] == 0])) == (owners[order] == 0).sum(), "no digit twice while others wait"
    times = np.bincount(order)[owners == 1]
    assert times.max() - times.min() <= 1, "all photos equally often"
    assert abs(np.diff(np.flatnonzero(owners[order] == 1))).max() < 40, "shuffled"
    first = [targets for _, targets in loader]
    loader.set_epoch(1)
    second = [targets for _, targets in loader]
    again = [targets for _, targets in build_loader(cfg, train, "train")]
    assert np.array_equal(np.concatenate(first), np.concatenate(again))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    val = build_dataset(cfg, "val")
    assert sum(len(targets) for _, targets in build_loader(cfg, val, "val")) == len(val), "all of them, once"


def test_two_ranks_share_an_epoch(folder):
    cfg = mix({"data": "digits", "weight": 1}, {"data": "image_folder", "root": str(folder)}, data__batch_size=16)
    train = build_dataset(cfg, "train")
    drawn = [np.concatenate([targets for _, targets in build_loader(cfg, train, "train", r, 2)]) for r in (0, 1)]
    whole = train.targets[train.images.epoch_order(np.random.default_rng([cfg.seed, 0]))]
    assert np.array_equal(np.concatenate(drawn)[: len(whole)], whole)


def test_colour_is_the_mixtures_where_mean_has_three_values(folder):
    cfg = mix(
        {"data": "digits"},
        {"data": "image_folder", "root": str(folder)},
        data__mean="[0.5,0.5,0.5]",
        data__std="[1,1,1]",
    )
    train = build_dataset(cfg, "train")
    assert train.images.shape == (8, 8, 3)
    grey, photo = train.images.get(np.array([0, len(train) - 1]))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert photo[0, 0].tolist() == [0, 200, 0]


def test_luma_is_pillows():
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), dtype=np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    assert np.abs(to_channels(images, 1)[..., 0].astype(int) - expected).max() <= 1


def test_folds_and_classes_reach_the_sources(folder):
    cfg = mix({"data": "digits"}, {"data": "image_folder", "root": str(folder)})
    cfg.data.folds = 3
    seen = []
    for cfg.data.fold in (1, 2, 3):
        splits = describe_splits(Experiment(cfg))
        seen.append(set(splits["val"]["ids"]))
        assert any(id.startswith("image_folder/") for id in seen[-1])
    assert not (seen[0] & seen[1] or seen[1] & seen[2] or seen[0] & seen[2])
    cfg.data.classes = ["1", "seven"]
    assert build_dataset(cfg, "train").classes == ("1", "seven")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"data": "digit"}, r"Unknown data set in data\.sources 'digit'\. Did you mean digits\?"),
        ({"data": "mixture"}, r"Unknown data set in data\.sources 'mixture'"),
        ({"weight": 1}, r"must list entries such as \{data: digits, weight: 0\.5\}"),
        ("digits", "must list entries such as"),
        ({"data": "digits", "weight": 0}, "the weight of digits must be a number above 0, not 0"),
        ({"data": "digits", "weight": "much"}, "must be a number above 0, not 'much'"),
        ({"data": "digits", "classes": ["1"]}, "must map old names to new ones"),
        ({"data": "digits", "classes": {"one": "1"}}, r"Unknown class of digits 'one'"),
        ({"data": "digits", "rot": "x"}, r"Unknown key of digits 'rot'"),
    ],
)
def test_a_mistake_in_a_source_is_one_sentence(source, said):
    with pytest.raises(UserError, match=said):
        build_dataset(mix(source), "train")


def test_a_group_pattern_is_a_sources(folder):
    photos = {"data": "image_folder", "root": str(folder), "group_pattern": "([0-9])[.]png", "val_fraction": 0.3}
    parts = [build_dataset(mix({"data": "digits"}, photos), split) for split in ("train", "val")]
    groups = [{id[-5] for id in part.ids if id.startswith("image_folder/")} for part in parts]
    assert groups[0]
    assert groups[1]
    assert not groups[0] & groups[1]
    with pytest.raises(UserError, match=r"is for the images of one data set: give it to those entries of data.sources"):
        build_dataset(mix({"data": "digits"}, photos, data__group_pattern="patient[0-9]"), "train")


@pytest.mark.parametrize(("mean", "std"), [("[0.5,0.5]", "[1,1]"), ("[0.5,0.5,0.5]", "[1]"), ("[0.5]", "[1,1,1]")])
def test_mean_and_std_have_one_value_or_three(mean, std):
    with pytest.raises(UserError, match=r"grey or in colour: give both one value, or both three\.$"):
        build_dataset(mix({"data": "digits"}, data__mean=mean, data__std=std), "train")


def test_a_sampler_and_weights_exclude_each_other():
    cfg = mix({"data": "digits"}, data__sampler="weighted")
    with pytest.raises(UserError, match=r"data\.sampler"):
        build_loader(cfg, build_dataset(cfg, "train"), "train")


def test_digits_and_mnist_together():
    place = os.environ.get("TEST_DATA_DIR")
    if not place:
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    train = build_dataset(mix({"data": "digits", "weight": 0.7}, {"data": "mnist", "root": place}), "train")
    assert len(train) == 1259 + 54_001  # 0.9 of each class, rounded
    assert train.classes == tuple("0123456789")
    order = train.images.epoch_order(np.random.default_rng(0))
    assert np.mean(train.images.owners()[order] == 0) == pytest.approx(0.7 / 1.7, abs=1e-4)
