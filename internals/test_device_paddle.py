"""Batches that are made on the device: the same bits as the loader's, in training, too."""

import numpy as np
import paddle
import pytest

from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, Loader, Split
from src.kit.paddle.devices import Batches, DeviceBatches, build_batches
from src.kit.run import Run
from src.kit.training import find_checkpoint
from src.kit.weights import load_weights
from tests.support import fit


def arrays(flippable: bool, channels: int = 3) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 12, 16, channels), dtype=np.uint8)
    return Split(ArrayImages(pixels), np.arange(50), tuple(map(str, range(50))), flippable)


def loader(split: Split, **options) -> Loader:
    channels = split.images.shape[2]
    return Loader(split, 8, [0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels], seed=5, **options)


def compare(split: Split, cache: str, epochs: int = 2, **options) -> int:
    made, expected = build_batches(loader(split, **options), cache), loader(split, **options)
    assert len(made) == len(expected)
    count = 0
    for epoch in range(epochs):
        for batches in (made.loader, expected):
            batches.set_epoch(epoch)
        for (images, targets), (arrays, numbers) in zip(made, expected, strict=True):
            assert isinstance(images, paddle.Tensor)
            assert np.array_equal(images.numpy(), arrays)
            assert np.array_equal(targets.numpy(), numbers)
            assert (images.numpy().dtype, targets.numpy().dtype) == (np.float32, np.int64)
            count += len(numbers)
    return count


@pytest.mark.parametrize("cache", ["none", "device"])
@pytest.mark.parametrize("flippable", [True, False])
@pytest.mark.parametrize("augment", ["none", "basic"])
def test_batches_are_those_of_the_loader_bit_by_bit(cache, augment, flippable):
    split = arrays(flippable, channels=3 if flippable else 1)
    assert compare(split, cache, augment=augment, shuffle=True) == 100
    assert compare(split, cache, augment=augment) == 100


def test_ranks_limits_and_dropped_batches_are_those_of_the_loader():
    assert compare(arrays(True), "device", augment="basic", shuffle=True, rank=1, world_size=3) == 34
    assert compare(arrays(True), "device", shuffle=True, limit=2) == 32
    assert compare(arrays(True), "device", augment="basic", shuffle=True, drop_last=True) == 96


def test_an_epoch_can_begin_in_its_middle():
    split = arrays(True)
    made, expected = (kind(loader(split, augment="basic", shuffle=True)) for kind in (on_device, list_of))
    whole = [images for images, _ in expected]
    made.loader.set_epoch(0, first_batch=4)
    rest = [images.numpy() for images, _ in made]
    assert all(np.array_equal(one, other) for one, other in zip(rest, whole[4:], strict=True))


def on_device(batches: Loader) -> DeviceBatches:
    made = build_batches(batches, "device")
    assert isinstance(made, DeviceBatches)
    return made


def list_of(batches: Loader) -> list:
    return list(batches)


def test_a_batch_may_be_changed_without_changing_the_next():
    made = on_device(loader(arrays(True)))
    for images, targets in made:
        images[:] = 7
        targets[:] = 7
    assert compare(made.loader.split, "device", epochs=1) == 50
    assert np.array_equal(next(iter(made))[0].numpy(), next(iter(loader(arrays(True))))[0])


def train(folder, *overrides: str) -> dict[str, np.ndarray]:
    tiny = ["model=small_cnn", "data=digits", "data.batch_size=32", "data.augment=basic", "tracker=none"]
    limits = ["trainer.max_epochs=2", "trainer.limit_train_batches=4", f"output_dir={folder.as_posix()}"]
    cfg = load_config(["framework=paddle", *tiny, *limits, *overrides])
    with Run(cfg) as run:
        fit(cfg, run)
    return load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]


def test_training_on_the_device_cache_gives_the_same_weights(tmp_path):
    first, second = (train(tmp_path, f"data.cache={cache}") for cache in ("none", "device"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_cache_that_cannot_be_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"data.cache=device supports shifting and mirroring only"):
        train(tmp_path, "data.cache=device", "data.augment=advanced")
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_nothing_is_copied_in_the_background():
    assert isinstance(build_batches(loader(arrays(True)), "none"), Batches)


@pytest.mark.parametrize("cache", ["none", "device"])
def test_the_epoch_counts_that_is_set_before_the_first_batch(cache):
    made, expected = (loader(arrays(True), augment="basic", shuffle=True) for _ in range(2))
    iterator = iter(build_batches(made, cache))
    for batches in (made, expected):
        batches.set_epoch(3)
    assert np.array_equal(next(iterator)[0].numpy(), next(iter(expected))[0])
