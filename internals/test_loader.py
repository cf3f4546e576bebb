"""The batches: shapes, values, order, shards, limits, augmentation, threads and speed."""

import math
import threading
import time
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from src.kit.config import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, FileImages, Loader, Split, build_image_loader
from src.kit.loading.sharing import divide


def numbered(count: int, size: int = 8, channels: int = 1, flippable: bool = True) -> Split:
    """Sample i has the target i; its pixels are random."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return Split(ArrayImages(pixels), np.arange(count), tuple(map(str, range(count))), flippable)


def loader(split: Split, batch_size: int = 4, **options) -> Loader:
    channels = split.images.shape[2]
    return Loader(split, batch_size, [0.5] * channels, [0.25] * channels, **options)


def targets(batches: Loader) -> list[int]:
    return [int(target) for _, batch in batches for target in batch]


@pytest.mark.parametrize(
    ("pixels", "labels", "said"),
    [
        (np.zeros((2, 4, 4, 1), np.float32), np.arange(2), "uint8 (N, H, W, C) of 0 to 255, not float32 (2, 4, 4, 1)"),
        (np.zeros((2, 4, 4), np.uint8), np.arange(2), "uint8 (N, H, W, C) of 0 to 255, not uint8 (2, 4, 4)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.arange(3), "each of its 2 images, not int64 (3,)"),
        (np.zeros((2, 4, 4, 1), np.uint8), [0, "b"], "each of its 2 images, not <U21 (2,)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.eye(2), "each of its 2 images, not float64 (2, 2)"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.array([1, 2]), "targets from 1 to 2, but 2 classes"),
    ],
)
def test_what_ones_own_data_set_gets_wrong_is_one_sentence(pixels, labels, said):
    with pytest.raises(UserError) as error:
        Split(ArrayImages(pixels), labels, ("a", "b"))
    assert said in str(error.value)


def test_batches_are_normalised_contiguous_and_in_order():
    split = numbered(10, channels=3)
    batches = list(Loader(split, 4, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]))
    assert [len(batch) for _, batch in batches] == [4, 4, 2]
    images, numbers = batches[1]
    assert (images.dtype, numbers.dtype, images.shape) == (np.float32, np.int64, (4, 3, 8, 8))
    assert images.flags.c_contiguous
    source = split.images.get(np.arange(4, 8)).astype(np.float64)
    expected = ((source / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert np.concatenate([numbers for _, numbers in batches]).tolist() == list(range(10))


def test_a_batch_can_be_written_to_without_changing_the_data():
    batches = loader(numbered(8))
    first = next(iter(batches))[0].copy()
    for images, numbers in batches:
        images[:] = 7
        numbers[:] = 7
    assert np.array_equal(next(iter(batches))[0], first)
    assert targets(batches) == list(range(8))


def test_shuffling_depends_on_the_seed_and_the_epoch_only():
    split = numbered(50)
    batches = loader(split, shuffle=True, seed=3)
    first = targets(batches)
    assert sorted(first) == list(range(50))
    assert first != list(range(50))
    assert targets(batches) == first
    batches.set_epoch(1)
    second = targets(batches)
    assert second != first
    batches.set_epoch(0)
    assert targets(batches) == first
    assert targets(loader(split, shuffle=True, seed=4)) != first


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_samples(world_size):
    split = numbered(20)
    shares = [targets(loader(split, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(20))
    options = {"shuffle": True, "batch_size": 2, "world_size": world_size}
    shares = [targets(loader(split, rank=rank, **options)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {-(-20 // world_size)}
    assert set(chain(*shares)) == set(range(20))
    assert len(list(chain(*shares))) - 20 < world_size  # no more repeated than it takes


@pytest.mark.parametrize(
    ("count", "limit", "batches"),
    [(22, 1.0, 6), (21, 1.0, 5), (22, 1, 1), (22, 3, 3), (22, 99, 6), (22, 0.5, 3), (22, 0.001, 1)],
)
def test_limit_is_a_number_or_a_share_of_batches(count, limit, batches):
    limited = loader(numbered(count), limit=limit, drop_single=True)
    assert len(limited) == len(list(limited)) == batches


@pytest.mark.parametrize("limit", [0, -1, 0.0, 1.5])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(UserError, match=f"not {limit}"):
        loader(numbered(8), limit=limit)


def test_a_batch_larger_than_the_training_data_is_refused():
    split = numbered(10)
    with pytest.raises(UserError, match=r"data.batch_size=11 is more than the 10 training samples"):
        loader(split, 11, shuffle=True)
    with pytest.raises(UserError, match="batch_size=6 is more than the 5 training samples for each of 2 devices"):
        loader(split, 6, shuffle=True, world_size=2)
    assert len(loader(split, 11)) == 1  # evaluation has no such need


def test_options_that_do_not_fit_the_data_are_refused():
    with pytest.raises(
        UserError, match=r"data.mean=\[0.5\] and data.std=\[0.5\] must have one value for each of 3 channels"
    ):
        Loader(numbered(8, channels=3), 4, [0.5], [0.5])
    with pytest.raises(UserError, match="std must be above 0"):
        Loader(numbered(8), 4, [0.5], [0.0])
    with pytest.raises(UserError, match=r"Unknown data.augment 'advance'. Did you mean advanced\?"):
        loader(numbered(8), augment="advance")
    with pytest.raises(UserError, match=r"of 1 or 3 channels, not 4"):
        loader(numbered(8, channels=4), augment="advanced")
    with pytest.raises(UserError, match=r"data.shift=8 moves images of 8 pixels out of sight: set a smaller number\."):
        loader(numbered(8), augment="basic", shift=8)
    for key, off in (("shift=2", "null"), ("border=mirror", "black")):
        cfg = load_config(["data=digits", "data.augment=advanced", f"data.{key}"])
        with pytest.raises(UserError, match=f"data.{key} is for data.augment=basic: set it to {off}"):
            build_image_loader(cfg, numbered(8), "val")
    for sizes in ([8, 0], [8.5], ["8"]):
        with pytest.raises(UserError, match=r"data.sizes must be a list of heights in pixels or null, not \["):
            loader(numbered(8), sizes=sizes)


@pytest.mark.parametrize("augment", ["basic", "advanced"])
def test_augmentation_depends_on_the_epoch_but_not_on_the_workers(augment):
    split = numbered(64, size=16)
    kinds = [loader(split, augment=augment, shuffle=True, num_workers=workers) for workers in (0, 1, 3)]
    first = [np.concatenate([images for images, _ in batches]) for batches in kinds]
    assert np.array_equal(first[0], first[1])
    assert np.array_equal(first[0], first[2])
    kinds[0].set_epoch(1)
    assert not np.array_equal(first[0], np.concatenate([images for images, _ in kinds[0]]))


def test_images_that_may_not_be_mirrored_are_not():
    columns = np.tile(np.arange(32, dtype=np.uint8), (200, 32, 1))[..., None] + 1  # brighter to the right
    for flippable in (True, False):
        split = Split(ArrayImages(columns), np.zeros(200, np.int64), ("a", "b"), flippable)
        images, _ = next(iter(Loader(split, 200, [0], [1], augment="basic")))
        rising = images[:, 0, 16, 20] > images[:, 0, 16, 10]
        assert rising.all() == (not flippable)
        assert rising.any()


@pytest.mark.parametrize("flippable", [True, False])
def test_each_image_is_mirrored_in_every_other_epoch_if_it_may_be(flippable):
    split = numbered(200, flippable=flippable)
    plain = split.images.get(np.arange(200))
    shown = []
    for epoch, world_size in ((0, 1), (1, 2), (2, 1), (3, 1)):
        mirrored = np.zeros(200, bool)
        for rank in range(world_size):
            batches = loader(split, 20, augment="basic", shift=0, shuffle=True, rank=rank, world_size=world_size)
            batches.set_epoch(epoch)
            for images, targets in batches:
                pixels = np.rint((images * 0.25 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
                mirrored[targets] = (pixels != plain[targets]).any(axis=(1, 2, 3))
                assert np.array_equal(
                    np.where(mirrored[targets, None, None, None], pixels[:, :, ::-1], pixels), plain[targets]
                )
        shown.append(mirrored)
    assert np.array_equal(shown[0], shown[2])
    assert np.array_equal(shown[1], shown[3])
    assert np.array_equal(shown[0], ~shown[1]) == flippable
    assert (80 < shown[0].sum() < 120) == flippable


def test_ranks_augment_differently():
    split = Split(ArrayImages(np.full((8, 32, 32, 1), 255, np.uint8)), np.zeros(8, np.int64), ("a", "b"))
    first, second = (next(iter(loader(split, augment="basic", rank=rank, world_size=2)))[0] for rank in (0, 1))
    assert not np.array_equal(first, second)


def test_mixed_batches_have_the_probability_of_each_class_as_targets():
    split = numbered(12)
    mixed = loader(split, shuffle=True, mixup_alpha=1.0, cutmix_alpha=1.0, seed=1)
    batches = list(mixed)
    for images, soft in batches:
        assert (images.dtype, soft.dtype, images.shape, soft.shape) == (np.float32, np.float32, (4, 1, 8, 8), (4, 12))
        np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    plain = list(loader(split, shuffle=True, seed=1))
    assert any(not np.array_equal(images, before) for (images, _), (before, _) in zip(batches, plain, strict=True))
    again = list(loader(split, shuffle=True, mixup_alpha=1.0, cutmix_alpha=1.0, seed=1, num_workers=2))
    for (images, soft), (same, same_soft) in zip(batches, again, strict=True):
        assert np.array_equal(images, same)
        assert np.array_equal(soft, same_soft)


def test_every_rank_has_the_same_size_in_the_same_step():
    split = numbered(400, channels=3)
    options = {"sizes": [4, 8, 12], "shuffle": True, "world_size": 2}
    shapes = [[images.shape for images, _ in loader(split, rank=rank, **options)] for rank in (0, 1)]
    assert shapes[0] == shapes[1]
    assert {shape[1:] for shape in shapes[0]} == {(3, size, size) for size in (4, 8, 12)}
    batches = loader(split, **options)
    batches.set_epoch(1)
    assert [images.shape for images, _ in batches] != shapes[0]
    unchanged, _ = next(iter(loader(split)))
    assert unchanged.shape[2:] == (8, 8)


def test_a_sampler_draws_every_class_equally_often():
    targets_of = np.repeat(np.arange(3), [300, 60, 12])
    split = Split(ArrayImages(np.zeros((372, 8, 8, 1), np.uint8)), targets_of, ("a", "b", "c"))
    for sampler, expected in (("oversample", [300] * 3), ("undersample", [12] * 3), ("none", [300, 60, 12])):
        batches = loader(split, 9, shuffle=True, sampler=sampler)
        assert np.bincount(targets(batches)).tolist() == expected
        assert len(batches) == -(-sum(expected) // 9)
    weighted = [targets(loader(split, 9, shuffle=True, sampler="weighted", rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(weighted[0]) == len(weighted[1]) == 186
    assert np.bincount(weighted[0] + weighted[1]).min() > 90


class Shards(ArrayImages):
    """Images that are read in blocks of ten: an epoch shuffles the blocks and keeps each of them together."""

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        return (rng.permutation(len(self) // 10)[:, None] * 10 + np.arange(10)).ravel()


def test_images_with_an_order_of_their_own_keep_it_and_each_rank_gets_a_block():
    pixels = np.zeros((60, 8, 8, 1), np.uint8)
    split = Split(Shards(pixels), np.arange(60), tuple(map(str, range(60))))
    whole = targets(loader(split, shuffle=True))
    assert sorted(whole) == list(range(60))
    assert whole != list(range(60))
    assert all(whole[start : start + 10] == list(range(whole[start], whole[start] + 10)) for start in range(0, 60, 10))
    shares = [targets(loader(split, shuffle=True, rank=rank, world_size=4)) for rank in range(4)]
    assert list(chain(*shares)) == whole
    shares = [targets(loader(split, rank=rank, world_size=7)) for rank in range(7)]
    assert list(chain(*shares)) == list(range(60))  # evaluation, too, reads each shard on one rank or two
    with pytest.raises(UserError, match=r"data.sampler=weighted cannot be used with data"):
        loader(split, shuffle=True, sampler="weighted")


class Numbers(Loader):
    """Its batches are the sample numbers."""

    def prepare(self, order, epoch, number):
        return order[number * self.batch_size : (number + 1) * self.batch_size].tolist()


def rest_of_epoch(split: Split, ranks: int, size: int | list[int], parts: list) -> tuple[Loader, list[list[int]]]:
    """A rank's loader, and the samples of each step of all ranks, after `parts` of epoch 3."""
    options = {"shuffle": True, "seed": 5, "drop_single": True, "num_workers": 0, "world_size": ranks}
    every = [Numbers(split, size, [0.5], [0.25], rank=rank, **options) for rank in range(ranks)]
    for each in every:
        each.resume(3, parts) if parts else each.set_epoch(3)
    return every[0], [list(chain(*step)) for step in zip(*every, strict=True)]


@pytest.mark.parametrize("blocks", [False, True])
def test_other_processes_share_out_what_is_left_of_an_epoch(blocks):
    """Up to three changes within an epoch, to any numbers of processes and sizes of batches, equal or not."""
    chance = np.random.default_rng(0)
    for _ in range(60):
        count = 10 * int(chance.integers(12, 30)) + (0 if blocks else int(chance.integers(10)))
        images = (Shards if blocks else ArrayImages)(np.zeros((count, 1, 1, 1), np.uint8))
        split, parts, seen, spare = Split(images, np.arange(count), ("a",) * count), [], [], 0
        for change in range(4):
            ranks, size = (int(number) for number in chance.integers(1, 6, 2))
            unequal = not blocks and ranks > 1 and chance.random() < 0.4
            sizes = [int(number) for number in chance.integers(2, 6, ranks)] if unequal else size
            one, steps = rest_of_epoch(split, ranks, sizes, parts)
            if change == 3 or len(steps) < 2:
                seen += chain(*steps)
                break
            stop = int(chance.integers(1, len(steps)))
            seen += chain(*steps[:stop])
            parts = one.position(one.first_batch + stop)
            assert rest_of_epoch(split, ranks, sizes, parts)[1] == steps[stop:], "the same processes: sample by sample"
            spare += blocks * (ranks - 1)  # the last block is filled up
        repeated, lost = len(seen) - len(set(seen)), count - len(set(seen))
        assert repeated <= spare + 2 * ranks - 1 if not unequal else repeated < sum(sizes), (count, parts, ranks, sizes)
        assert lost <= (ranks if not unequal else sum(sizes) - 1), "less than a step, as at the end of each epoch"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_batch_as_if_it_had_never_stopped(workers):
    options = {"shuffle": True, "augment": "basic", "mixup_alpha": 0.5, "sizes": [6, 8], "num_workers": workers}
    batches = loader(numbered(40), **options)
    batches.set_epoch(2)
    whole = list(batches)
    batches.set_epoch(2, first_batch=7)
    rest = list(batches)
    assert len(batches) == len(whole) == 10
    assert len(rest) == 3
    for expected, got in zip(whole[7:], rest, strict=True):
        assert all(np.array_equal(left, right) for left, right in zip(expected, got, strict=True))
    batches.set_epoch(3)
    assert len(list(batches)) == 10


def image_files(folder, count: int) -> Split:
    for number in range(count):
        Image.new("RGB", (50, 40), (number, 0, 0)).save(folder / f"{number}.png")
    return Split(
        FileImages([folder / f"{n}.png" for n in range(count)], 16), np.arange(count), tuple(map(str, range(count)))
    )


@pytest.mark.parametrize("workers", [0, 1, 4, None])
def test_files_are_decoded_into_the_right_batches(tmp_path, workers):
    files = loader(image_files(tmp_path, 30), shuffle=True, num_workers=workers)
    seen = []
    for images, numbers in files:
        assert images.flags.c_contiguous
        np.testing.assert_allclose(images[:, 0, 8, 8], (numbers / 255 - 0.5) / 0.25, rtol=1e-5)
        seen += numbers.tolist()
    assert sorted(seen) == list(range(30))


def test_an_abandoned_iteration_leaves_no_threads(tmp_path):
    files = loader(image_files(tmp_path, 40), num_workers=3)
    before = threading.active_count()
    for images, _ in files:
        assert len(images) == 4
        break
    assert threading.active_count() == before
    iterator = iter(files)
    next(iterator)
    assert threading.active_count() > before
    iterator.close()
    assert threading.active_count() == before
    assert targets(files) == list(range(40))


def test_a_damaged_file_stops_the_iteration_with_its_name(tmp_path):
    files = loader(image_files(tmp_path, 40), num_workers=2)
    (tmp_path / "17.png").write_bytes(b"gone")
    before = threading.active_count()
    with pytest.raises(UserError, match=r"17\.png"):
        list(files)
    assert threading.active_count() == before


def test_images_in_memory_are_batched_as_arrays():
    split = Split(ArrayImages(np.zeros((55_000, 28, 28, 1), np.uint8)), np.zeros(55_000, np.int64), ("a", "b"))
    start = time.perf_counter()
    count = sum(len(numbers) for _, numbers in loader(split, 128, shuffle=True))
    assert count == 55_000
    assert time.perf_counter() - start < 1.0  # 0.02 s on an idle core; image by image it would be 2 s


@pytest.mark.parametrize("sizes", [[24, 8], [3, 2, 5]])
@pytest.mark.parametrize("count", [31, 64, 95, 100])
def test_unequal_batches_share_out_the_samples(sizes: list[int], count: int):
    parts = [divide(np.arange(count), sizes, rank) for rank in range(len(sizes))]
    seen = np.concatenate(parts)
    assert len(set(seen.tolist())) == len(seen) > count - sum(sizes)
    assert len({math.ceil(len(part) / size) for part, size in zip(parts, sizes, strict=True)}) == 1
    if not count % sum(sizes):
        assert parts[1][: sizes[1]].tolist() == list(range(sizes[0], sizes[0] + sizes[1]))
