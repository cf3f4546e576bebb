"""Folds: together they are all samples, each is like the whole, and the test split is the same in all."""

import numpy as np
import pytest

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.splitting import make_folds


def test_folds_of_classes_are_as_equal_as_they_can_be():
    targets = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 7], [101, 52, 13, 4]))
    folds = make_folds(targets, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(170))
    assert {len(fold) for fold in folds} == {34}
    counts = np.array([np.bincount(targets[fold], minlength=8) for fold in folds])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1


def test_folds_of_sets_of_classes_have_every_label():
    labels = np.random.default_rng(0).random((1000, 15)) < np.geomspace(0.5, 0.02, 15)
    folds = make_folds(labels, 4, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(1000))
    assert max(map(len, folds)) - min(map(len, folds)) <= 10
    counts = np.array([labels[fold].sum(axis=0) for fold in folds])
    assert np.abs(counts / labels.sum(axis=0) - 0.25).max() < 0.1


def test_no_group_is_in_two_folds():
    rng = np.random.default_rng(0)
    groups, targets = rng.integers(0, 60, 900), rng.integers(0, 3, 900)
    folds = make_folds(targets, 3, seed=0, groups=groups)
    owners = [set(groups[fold]) for fold in folds]
    assert sum(map(len, owners)) == len(set.union(*owners))
    assert all(len(fold) == pytest.approx(300, abs=20) for fold in folds)


def test_the_seed_decides_the_folds():
    targets = np.arange(100) % 4
    first, again, other = (make_folds(targets, 5, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_folds_than_samples_or_groups_are_refused():
    with pytest.raises(UserError, match=r"trainer\.folds=5 is too many for 4 samples"):
        make_folds(np.zeros(4, np.int64), 5, seed=0)
    with pytest.raises(UserError, match=r"trainer\.folds=5 is too many for 3 groups"):
        make_folds(np.zeros(30, np.int64), 5, seed=0, groups=np.arange(30) % 3)


def test_folds_of_a_data_set_share_the_test_split_and_cover_the_rest():
    whole = load_config([])
    keys = ["data.folds=4", "data.val_fraction=0.3"]
    folds = [load_config([*keys, f"data.fold={number}"]) for number in (1, 2, 3, 4)]
    tests = {tuple(build_dataset(cfg, "test").ids) for cfg in folds}
    parts = [(build_dataset(cfg, "train").ids, build_dataset(cfg, "val").ids) for cfg in folds]
    assert len(tests) == 1
    known = sorted(set(range(1797)) - set(tests.pop()))
    assert sorted(np.concatenate([val for _, val in parts])) == known
    assert all(sorted(np.concatenate(part)) == known for part in parts)
    assert len(known) == pytest.approx(1797 * 0.85, abs=5)
    assert len(build_dataset(whole, "test")) == 1797 - len(known)
