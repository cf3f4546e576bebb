"""Decoded images in memory: the same batches, each file read once, and what is chosen where."""

import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.kit.errors import UserError
from src.kit.hardware.probe import SystemProbe, free_ram
from src.kit.loading import ArrayImages, FileImages, Loader, Split, plan_epoch
from src.kit.loading.cache import CachedImages, choose_cache, keep_decoded, read_all, useful_threads

GIB = 2**30


@pytest.fixture
def files(tmp_path) -> Split:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(30)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return Split(FileImages(paths, 16), np.arange(30), tuple(map(str, range(30))))


def loader(split: Split, **options: object) -> Loader:
    return Loader(split, 4, [0.5] * 3, [0.25] * 3, **{"shuffle": True, "augment": "basic", **options})


def epochs(batches: Loader, count: int = 3) -> np.ndarray:
    images = []
    for epoch in range(count):
        batches.set_epoch(epoch)
        images += [batch for batch, _ in batches]
    return np.concatenate(images)


@pytest.mark.parametrize("workers", [0, 3])
def test_cached_batches_are_the_same_bits(files, workers):
    plain = epochs(loader(files, num_workers=0))
    assert np.array_equal(epochs(loader(keep_decoded(files, "memory"), num_workers=workers)), plain)


def test_each_file_is_read_in_the_first_epoch_only(files):
    cached = keep_decoded(files, "memory")
    first = epochs(loader(cached), 1)
    for path in files.images.paths:
        path.unlink()
    assert np.array_equal(epochs(loader(cached), 1), first)
    with pytest.raises(UserError, match="images cannot be read"):
        epochs(loader(files), 1)


def test_a_batch_may_be_written_to(files):
    images = CachedImages(files.images)
    images.get(np.arange(4))[:] = 7
    assert np.array_equal(images.get(np.arange(4)), files.images.get(np.arange(4)))
    part = images.take(np.array([5, 3]))
    assert np.array_equal(part.get(np.array([1])), files.images.get(np.array([3])))


def test_what_is_in_memory_or_not_to_be_cached_stays_as_it_is(files):
    arrays = Split(ArrayImages(np.zeros((4, 8, 8, 1), np.uint8)), np.zeros(4, np.int64), ("a", "b"))
    assert keep_decoded(arrays, "memory") is arrays
    assert keep_decoded(files, "none") is files
    assert keep_decoded(files, "device") is files


@pytest.mark.parametrize("margin", [0, 2])
def test_read_all_gives_every_image_once_with_black_around(files, margin):
    planes = read_all(files.images, margin, workers=2)
    assert planes.shape == (30, 3, 16 + 2 * margin, 16 + 2 * margin)
    inside = planes[:, :, margin : 16 + margin, margin : 16 + margin]
    assert np.array_equal(inside.transpose(0, 2, 3, 1), files.images.get(np.arange(30)))
    assert planes.sum() == inside.sum()


def choice(split: Split, cache: str, free_ram: int, free_device: int = 0, **keys: object) -> str:
    data = {"cache": cache, "augment": "none", "mixup_alpha": 0.0, "cutmix_alpha": 0.0, "sizes": None}
    return choose_cache(OmegaConf.create({"data": {**data, **keys}}), [split], free_ram, free_device)


class Timed(FileImages):
    """Images that take a given time each, without Python's lock."""

    def __init__(self, count: int, seconds: float) -> None:
        super().__init__([Path(f"{number}.jpg") for number in range(count)], 8)
        self.seconds = seconds

    def get(self, indices):
        time.sleep(self.seconds * len(indices))
        return np.zeros((len(indices), 8, 8, 3), np.uint8)


def test_small_images_get_no_threads_that_would_wait_for_each_other(files):
    assert useful_threads(Timed(1000, 0.002), 16) == 16, "a photo of some megapixels, or a slow disk"
    assert useful_threads(Timed(1000, 0.0), 16) <= 4
    assert useful_threads(CachedImages(Timed(1000, 0.0)), 16) <= 4
    assert useful_threads(Timed(20, 0.0), 16) == 16, "too few to tell"
    assert useful_threads(FileImages([Path("none.jpg")] * 100, 8), 16) == 16, "training says which file is missing"
    assert useful_threads(ArrayImages(np.zeros((100, 8, 8, 3), np.uint8)), 16) == 16


def test_what_was_asked_for_is_started():
    split = Split(Timed(1000, 0.0), np.arange(1000) % 2, ("a", "b"))
    assert loader(split, num_workers=7).threads == 7
    automatic = loader(split)
    assert automatic.threads <= min(4, max(1, automatic.num_workers))


def test_auto_takes_the_fastest_place_that_fits(files):
    need = 30 * 16 * 16 * 3
    assert choice(files, "auto", 2 * need, 4 * need) == "device"
    assert choice(files, "auto", 2 * need, 4 * need - 1) == "memory"
    assert choice(files, "auto", 2 * need - 1, 100 * need) == "none"
    for keys in ({"augment": "advanced"}, {"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}, {"sizes": [8, 16]}):
        assert choice(files, "auto", 2 * need, 4 * need, **keys) == "memory"
    arrays = Split(ArrayImages(np.zeros((4, 8, 8, 1), np.uint8)), np.zeros(4, np.int64), ("a", "b"))
    assert choice(arrays, "auto", GIB) == "none"
    assert choice(arrays, "auto", GIB, GIB) == "device"
    assert choice(arrays, "none", GIB, GIB) == "none"


def test_what_was_asked_for_and_cannot_be_is_refused(files):
    with pytest.raises(UserError, match=r"data.cache=memory needs 0.0 GiB .* and 0.0 GiB are free"):
        choice(files, "memory", 1000)
    with pytest.raises(UserError, match=r"data.cache=device supports shifting and mirroring only"):
        choice(files, "device", GIB, GIB, augment="advanced")
    assert choice(files, "device", GIB, 0, augment="basic") == "device"  # on a CPU, too

    class Streamed(FileImages):
        def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
            return np.arange(len(self))

    streamed = Split(Streamed(files.images.paths, 16), files.targets, files.classes)
    assert choice(streamed, "auto", GIB, GIB) == "none"
    with pytest.raises(UserError, match=r"use data.cache=none"):
        choice(streamed, "memory", GIB)


def test_a_plan_has_the_samples_of_the_loader(files):
    batches = loader(files, limit=5)
    batches.set_epoch(2, first_batch=1)
    plan = plan_epoch(batches)
    assert plan.samples.tolist() == [int(target) for _, targets in batches for target in targets]
    assert len(plan.samples) == 16
    assert plan.rows.shape == plan.columns.shape == (16, 16)
    assert plan_epoch(loader(files, augment="none")).rows is None


class Recorded(SystemProbe):
    """A machine that has the given files and nothing else."""

    def __init__(self, **files: str) -> None:
        super().__init__()
        self.files, self.system = files, "Linux"

    def read(self, path: str) -> str | None:
        return self.files.get(path.rpartition("/")[2])


def test_free_memory_counts_every_limit():
    system = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"
    assert free_ram(Recorded(meminfo=system)) == 8 * GIB
    group = {"cgroup": "0::/job", "memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n"}
    assert free_ram(Recorded(meminfo=system, **group, **{"memory.stat": f"anon 1\ninactive_file {GIB}\n"})) == 2 * GIB
    assert (
        free_ram(Recorded(meminfo=system, **{**group, "memory.max": "max\n"}, **{"memory.stat": "anon 1\n"})) == 8 * GIB
    )
    assert free_ram(Recorded(meminfo="MemTotal: 16777216 kB\n")) == 8 * GIB  # half, where the system does not tell
