"""What an epoch draws from classes of unequal size."""

import numpy as np
import pytest

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.loading.sharing import METHODS, draw_samples, epoch_size
from tests.support import build_loader

TARGETS = np.random.default_rng(0).permutation(np.repeat([0, 1, 4], [900, 90, 10]))


def counts(method: str, seed: int = 0) -> list[int]:
    return np.bincount(TARGETS[draw_samples(TARGETS, method, np.random.default_rng(seed))])[[0, 1, 4]].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_an_epoch_is_known_before_it_is_drawn(method):
    drawn = draw_samples(TARGETS, method, np.random.default_rng(0))
    assert len(drawn) == epoch_size(TARGETS, method)
    assert drawn.dtype == np.int64
    assert np.array_equal(drawn, draw_samples(TARGETS, method, np.random.default_rng(0)))
    assert not np.array_equal(drawn, draw_samples(TARGETS, method, np.random.default_rng(1)))
    assert len(np.unique(TARGETS[drawn[:50]])) > 1, "shuffled"


def test_none_draws_every_sample_once():
    assert sorted(draw_samples(TARGETS, "none", np.random.default_rng(0))) == list(range(1000))


def test_weighted_draws_every_class_equally_often_on_average():
    mean = np.mean([counts("weighted", seed) for seed in range(50)], axis=0)
    assert mean == pytest.approx([1000 / 3] * 3, rel=0.05)
    assert sum(counts("weighted")) == 1000


def test_oversampling_repeats_all_samples_of_a_class_equally_often():
    assert counts("oversample") == [900, 900, 900]
    drawn = draw_samples(TARGETS, "oversample", np.random.default_rng(0))
    times = np.bincount(drawn, minlength=1000)
    assert {int(value) for value in times[TARGETS == 4]} == {90}
    assert {int(value) for value in times[TARGETS == 0]} == {1}


def test_undersampling_draws_other_samples_of_the_large_classes_each_time():
    assert counts("undersample") == [10, 10, 10]
    first, second = (set(draw_samples(TARGETS, "undersample", np.random.default_rng(seed))) for seed in (0, 1))
    assert len(first) == 30, "none twice"
    rare = set(np.flatnonzero(TARGETS == 4))
    assert rare <= first & second
    assert len(first & second - rare) < 5


@pytest.mark.parametrize("method", METHODS[1:])
def test_data_sampler_reaches_the_training_batches_and_no_others(method):
    cfg = load_config([f"data.sampler={method}", "data.batch_size=32", "data.classes=[0,1,2,3,4,5,6]"])
    train = build_dataset(cfg, "train")
    sizes = np.where(np.arange(7) < 5, 10_000, 18)
    skewed = train.take(np.concatenate([np.flatnonzero(train.targets == k)[: sizes[k]] for k in range(7)]))
    most, least = skewed.class_counts().max(), skewed.class_counts().min()
    loader = build_loader(cfg, skewed, "train")
    drawn = np.bincount(np.concatenate([targets for _, targets in loader]))
    each = {"weighted": len(skewed) / 7, "oversample": most, "undersample": least}[method]
    assert drawn.tolist() == pytest.approx([each] * 7, rel=0.35 if method == "weighted" else 0)
    assert len(loader) == -(-int(each * 7) // 32)
    seen = np.concatenate([targets for _, targets in build_loader(cfg, skewed, "val")])
    assert np.array_equal(seen, skewed.targets)
