"""MixUp and CutMix: pixels and targets are mixed in the same proportion."""

import numpy as np
import pytest

from src.kit.augment import mix_batch

K = 16


def batch(size: int = 12, count: int = K) -> tuple[np.ndarray, np.ndarray]:
    """Image i is i everywhere, and of class i."""
    targets = np.arange(count)
    return np.broadcast_to(targets[:, None, None, None], (count, 3, size, size)).astype(np.float32), targets


@pytest.mark.parametrize("seed", range(30))
def test_mixup_blends_pixels_and_targets_by_one_share(seed):
    images, targets = batch()
    mixed, soft = mix_batch(images, targets, K, 0.4, 0.0, np.random.default_rng(seed))
    assert (mixed.dtype, soft.dtype, soft.shape) == (np.float32, np.float32, (K, K))
    assert np.ptp(mixed.reshape(K, -1), axis=1).max() == 0  # each image is still one value
    np.testing.assert_allclose(mixed[:, 0, 0, 0], soft @ np.arange(K), atol=1e-4)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert soft.min() >= 0
    own = soft[np.arange(K), targets]
    assert len(np.unique(own[own < 1].round(5))) <= 1  # one share for the whole batch


@pytest.mark.parametrize("seed", range(60))
def test_cutmix_pastes_a_box_and_its_area_is_the_share(seed):
    images, targets = batch(size=20)
    mixed, soft = mix_batch(images, targets, K, 0.0, 1.0, np.random.default_rng(seed))
    assert set(np.unique(mixed)) <= set(range(K))  # nothing is blended
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft @ np.arange(K), atol=1e-4)
    changed = np.flatnonzero((mixed != np.arange(K)[:, None, None, None]).any(axis=(1, 2, 3)))
    for number in changed:
        assert np.array_equal(mixed[number, 0], mixed[number, 2])
        rows, columns = np.nonzero(mixed[number, 0] != number)
        assert len(rows) == np.ptp(rows) * np.ptp(columns) + np.ptp(rows) + np.ptp(columns) + 1, "one whole box"
        partner = int(mixed[number, 0, rows[0], columns[0]])
        assert soft[number, partner] == pytest.approx(len(rows) / 400, abs=1e-6)


def test_cutmix_takes_the_box_from_the_same_place():
    images = np.arange(2 * 1 * 8 * 8, dtype=np.float32).reshape(2, 1, 8, 8)
    sources = images.copy()
    for seed in range(20):
        mixed, _ = mix_batch(sources.copy(), np.arange(2), 2, 0.0, 1.0, np.random.default_rng(seed))
        assert ((mixed[0] == images[0]) | (mixed[0] == images[1])).all()


def test_shares_follow_the_beta_distribution():
    for alpha in (0.2, 1.0, 8.0):
        shares = []
        for seed in range(1500):
            images, targets = batch(size=1, count=2)
            _, soft = mix_batch(images, targets, 2, alpha, 0.0, np.random.default_rng(seed))
            if soft[0, 0] < 1:  # else the image is its own partner
                shares.append(soft[0, 0])
        variance = 1 / (4 * (2 * alpha + 1))
        assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
        assert np.var(shares) == pytest.approx(variance, rel=0.15)


def test_where_both_are_on_each_batch_gets_one_of_them():
    blended = []
    for seed in range(300):
        images, targets = batch()
        mixed, _ = mix_batch(images, targets, K, 1.0, 1.0, np.random.default_rng(seed))
        blended.append(not set(np.unique(mixed)) <= set(range(K)))
    assert np.mean(blended) == pytest.approx(0.5, abs=0.1)


def test_the_generator_decides_and_zero_is_off():
    images, targets = batch()
    first, second = (mix_batch(images.copy(), targets, K, 0.3, 0.3, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(left, right) for left, right in zip(first, second, strict=True))
    same, soft = mix_batch(images.copy(), targets, K, 0.0, 0.0, np.random.default_rng(5))
    assert np.array_equal(same, images)
    assert np.array_equal(soft, np.eye(K))


def test_a_batch_of_one_stays_as_it_is():
    images, _ = batch(count=1)
    for alphas in ((1.0, 0.0), (0.0, 1.0)):
        mixed, soft = mix_batch(images.copy(), np.array([0]), 3, *alphas, np.random.default_rng(0))
        assert np.array_equal(mixed, images)
        assert soft.tolist() == [[1, 0, 0]]
