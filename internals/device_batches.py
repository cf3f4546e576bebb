"""What must hold of batches made on the device in every framework: the loader's bits, in training too."""

from typing import Any

import numpy as np
import pytest

from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, Loader, Split
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


class DeviceTests:
    """Subclasses name the framework and its tensor, and build batches on the CPU."""

    framework: str
    tensor: type
    batches: type
    device_batches: type

    def build(self, batches: Loader, cache: str) -> Any:
        raise NotImplementedError

    def compare(self, split: Split, cache: str, epochs: int = 2, **options) -> int:
        made, expected = self.build(loader(split, **options), cache), loader(split, **options)
        assert len(made) == len(expected)
        count = 0
        for epoch in range(epochs):
            for batches in (made.loader, expected):
                batches.set_epoch(epoch)
            for (images, targets), (arrays, numbers) in zip(made, expected, strict=True):
                assert isinstance(images, self.tensor)
                assert np.array_equal(images.numpy(), arrays)
                assert np.array_equal(targets.numpy(), numbers)
                assert (images.numpy().dtype, targets.numpy().dtype) == (np.float32, np.int64)
                count += len(numbers)
        return count

    @pytest.mark.parametrize("cache", ["none", "device"])
    @pytest.mark.parametrize("flippable", [True, False])
    @pytest.mark.parametrize("augment", ["none", "basic"])
    def test_batches_are_those_of_the_loader_bit_by_bit(self, cache, augment, flippable):
        split = arrays(flippable, channels=3 if flippable else 1)
        assert self.compare(split, cache, augment=augment, shuffle=True) == 100
        assert self.compare(split, cache, augment=augment) == 100

    def test_ranks_limits_and_dropped_batches_are_those_of_the_loader(self):
        assert self.compare(arrays(True), "device", augment="basic", shuffle=True, rank=1, world_size=3) == 34
        assert self.compare(arrays(True), "device", shuffle=True, limit=2) == 32
        assert self.compare(arrays(True), "device", augment="basic", shuffle=True, shift=2, border="mirror") == 100
        assert self.compare(arrays(True), "device", augment="basic", shift=0, border="mirror") == 100
        dropped = {"rank": 1, "world_size": 2, "drop_single": True}
        assert self.compare(arrays(True), "device", augment="basic", shuffle=True, **dropped) == 48

    def test_an_epoch_can_begin_in_its_middle(self):
        expected, same = (loader(arrays(True), augment="basic", shuffle=True) for _ in range(2))
        made = self.on_device(same)
        expected.set_epoch(1)  # when other images are mirrored than in the first
        whole = [images for images, _ in expected]
        made.loader.set_epoch(1, first_batch=4)
        rest = [images.numpy() for images, _ in made]
        assert all(np.array_equal(one, other) for one, other in zip(rest, whole[4:], strict=True))
        for batches in (made.loader, expected):
            assert batches.resume(1, [(2, 9, 2)]) == 5, "the last 14 of 50"
        assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(made, expected, strict=True))

    def on_device(self, batches: Loader) -> Any:
        made = self.build(batches, "device")
        assert isinstance(made, self.device_batches)
        return made

    def test_a_batch_may_be_changed_without_changing_the_next(self):
        made = self.on_device(loader(arrays(True)))
        for images, targets in made:
            images[:] = 7
            targets[:] = 7
        assert self.compare(made.loader.split, "device", epochs=1) == 50
        assert np.array_equal(next(iter(made))[0].numpy(), next(iter(loader(arrays(True))))[0])

    def train(self, folder, *overrides: str) -> dict[str, np.ndarray]:
        tiny = ["model=small_cnn", "data=digits", "data.batch_size=32", "data.augment=basic", "tracker=none"]
        limits = ["trainer.max_epochs=2", "trainer.limit_train_batches=4", f"output_dir={folder.as_posix()}"]
        cfg = load_config([f"framework={self.framework}", *tiny, *limits, *overrides])
        with Run(cfg) as run:
            fit(cfg, run)
        return load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]

    def test_training_on_the_device_cache_gives_the_same_weights(self, tmp_path):
        first, second = (self.train(tmp_path, f"data.cache={cache}") for cache in ("none", "device"))
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_a_cache_that_cannot_be_is_refused_and_leaves_nothing(self, tmp_path):
        with pytest.raises(UserError, match=r"data.cache=device supports shifting and mirroring only"):
            self.train(tmp_path, "data.cache=device", "data.augment=advanced")
        assert not list(tmp_path.iterdir())

    def test_without_a_gpu_nothing_is_copied_in_the_background(self):
        assert isinstance(self.build(loader(arrays(True)), "none"), self.batches)

    @pytest.mark.parametrize("cache", ["none", "device"])
    def test_the_epoch_counts_that_is_set_before_the_first_batch(self, cache):
        made, expected = (loader(arrays(True), augment="basic", shuffle=True) for _ in range(2))
        iterator = iter(self.build(made, cache))
        for batches in (made, expected):
            batches.set_epoch(3)
        assert np.array_equal(next(iterator)[0].numpy(), next(iter(expected))[0])
