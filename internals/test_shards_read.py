"""An epoch of shards: every sample once, well mixed from few shards at a time, resumed exactly, in little memory."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from paths import TEMPLATE
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, Loader, Split
from src.kit.shards.read import WINDOW, ShardFolder, ShardImages, write_shards

SIZE = 4


def source(count: int) -> Split:
    """Sample i has the target i, which its pixels tell too."""
    pixels = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = (np.arange(count) // 256)[:, None, None], (np.arange(count) % 256)[:, None, None]
    return Split(ArrayImages(pixels), np.arange(count), tuple(map(str, range(count))))


def sharded(folder: Path, count: int, shards: int) -> Split:
    """`source` from so many shards, or one or two more where it does not divide."""
    per_shard = -(-count // shards)
    size = -(-(per_shard * 4 * 512 + 1024) // 10240) * 10240
    write_shards(source(count), "train", folder / "train", size, np.arange(count), lambda: None)
    images = ShardImages(ShardFolder(folder / "train"), SIZE)
    return Split(images, images.targets(), images.source.index.classes)


def loader(split: Split, batch_size: int = 4, **options) -> Loader:
    return Loader(split, batch_size, [0.0] * 3, [1 / 255] * 3, **options)


def samples(batches) -> list[int]:
    """The targets of the batches, which must be those that the pixels tell."""
    found = []
    for images, targets in batches:
        pixels = np.rint(images[:, :, 0, 0]).astype(int)
        assert np.array_equal(pixels[:, 0] * 256 + pixels[:, 1], targets)
        found += targets.tolist()
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Split:
    split = sharded(tmp_path_factory.mktemp("large"), 3000, 40)
    assert 35 <= len(split.images.source.index.shards) <= 45
    return split


@pytest.mark.parametrize("shards", [1, 3, 8, 20])
@pytest.mark.parametrize("count", [97, 240, 331])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_and_workers_share_every_sample(tmp_path, count, shards, world_size):
    split = sharded(tmp_path, count, shards)
    for workers in (0, 3):
        options = {"world_size": world_size, "num_workers": workers}
        shares = [samples(loader(split, rank=rank, **options)) for rank in range(world_size)]
        assert sorted(chain(*shares)) == list(range(count))  # evaluation: each one exactly once
        shares = [samples(loader(split, rank=rank, shuffle=True, **options)) for rank in range(world_size)]
        assert {len(share) for share in shares} == {-(-count // world_size)}  # training: as many steps on each rank,
        together = list(chain(*shares))
        assert set(together) == set(range(count))  # nothing lost,
        assert len(together) - count == -count % world_size  # and no more repeated than that takes
        assert all(len(set(share)) == len(share) for share in shares)


def test_every_epoch_has_another_order_of_every_sample(large):
    orders = [large.images.epoch_order(np.random.default_rng([5, epoch])) for epoch in range(30)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(len(large)))
    assert np.array_equal(orders[0], large.images.epoch_order(np.random.default_rng([5, 0])))
    places = [np.argsort(order) for order in [np.arange(len(large)), *orders]]
    correlations = np.corrcoef(places)[np.triu_indices(31, 1)]
    # as uncorrelated as permutations of the shards are, whose samples are moreover mixed
    deviation = 1 / np.sqrt(len(large.images.source.index.shards) - 1)
    assert correlations.std() == pytest.approx(deviation, rel=0.2)
    assert abs(correlations).max() < 5 * deviation
    assert abs(correlations.mean()) < 0.05


def test_within_a_window_the_order_is_as_random_as_a_permutation(tmp_path):
    images = sharded(tmp_path, 1000, WINDOW).images
    assert len(images.source.index.shards) <= WINDOW
    places = [np.argsort(images.epoch_order(np.random.default_rng(epoch))) for epoch in range(20)]
    correlations = np.corrcoef([np.arange(1000), *places])[np.triu_indices(21, 1)]
    # a permutation's rank correlation has a standard deviation of 1 / sqrt(n - 1)
    assert abs(correlations).max() < 5 / np.sqrt(999)
    assert correlations.std() == pytest.approx(1 / np.sqrt(999), rel=0.2)
    neighbours = [np.mean(np.abs(np.diff(np.argsort(place))) == 1) for place in places]
    assert np.mean(neighbours) < 0.004  # by chance 2 of 1000


def test_neighbours_come_from_few_shards_and_all_of_them(large):
    images = large.images
    order = images.epoch_order(np.random.default_rng(1))
    shards = images.shards_of(order)
    first = {shard: np.flatnonzero(shards == shard).min() for shard in np.unique(shards)}
    last = {shard: np.flatnonzero(shards == shard).max() for shard in first}
    in_use = [sum(first[shard] <= place <= last[shard] for shard in first) for place in range(len(order))]
    assert max(in_use) <= WINDOW
    batches = [len(set(shards[place : place + 64])) for place in range(0, 2900, 64)]
    assert np.median(batches) == WINDOW


def test_each_rank_needs_its_own_shards(large):
    owners: dict[int, set[int]] = {}
    for rank in range(5):
        found = samples(loader(large, rank=rank, world_size=5, shuffle=True))
        for shard in set(large.images.shards_of(np.array(found))):
            owners.setdefault(int(shard), set()).add(rank)
    shared = sum(len(ranks) > 1 for ranks in owners.values())
    assert shared <= 4 * WINDOW  # those of the windows that lie across a border


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 1, 7, 46, 47])
def test_resumed_in_mid_epoch_is_the_rest_of_the_epoch(large, first, workers):
    options = {"augment": "basic", "shuffle": True, "seed": 3, "rank": 1, "world_size": 2, "num_workers": workers}
    whole = loader(large, 32, **options)
    whole.set_epoch(2)
    expected = list(whole)[first:]
    resumed = loader(large, 32, **options)
    resumed.set_epoch(2, first)
    found = list(resumed)
    assert len(found) == len(expected) == 47 - first
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_a_part_is_ordered_by_shards_too(large):
    part = large.take(np.flatnonzero(large.targets % 3 == 0)).take_classes(range(0, 2000))
    order = part.images.epoch_order(np.random.default_rng(0))
    assert np.array_equal(np.sort(order), np.arange(len(part)))
    assert sorted(samples(loader(part, shuffle=True))) == [number for number in range(2000) if number % 3 == 0]


def test_many_threads_read_at_once(large):
    chance = np.random.default_rng(0)
    orders = [chance.permutation(len(large))[:300] for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for order, images in zip(orders, pool.map(large.images.get, orders), strict=True):
            assert np.array_equal(images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 0, 1], order)


@pytest.mark.parametrize("damage", ["flipped bit", "cut off"])
def test_a_damaged_shard_is_refused_in_one_sentence(tmp_path, damage):
    split = sharded(tmp_path, 100, 3)
    path = tmp_path / "train" / split.images.source.index.shards[1].name
    content = bytearray(path.read_bytes())
    number = int(split.images.starts[1]) + 5
    place = int(split.images.source.table["block"][number]) * 512 + 20
    if damage == "cut off":
        del content[place:]
    content[place:] = bytes([content[place] ^ 1]) + content[place + 1 :] if damage == "flipped bit" else b""
    path.write_bytes(content)
    assert len(split.images.get(np.arange(number))) == number
    with pytest.raises(UserError) as caught:
        list(loader(split))
    assert str(caught.value) == (
        f"Sample 5 of {path} is damaged (its checksum differs): delete that file, and fetch or copy it again."
    )


def test_an_image_that_cannot_be_decoded_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("src.kit.shards.read.encode_image", lambda images, index: (b"no image", ".jpg"))
    with pytest.raises(UserError, match=r"train-000000\.tar/000000000\.jpg: Cannot decode"):
        list(loader(sharded(tmp_path, 5, 1)))


EPOCH = """
import sys
from pathlib import Path

import numpy as np
from src.kit.loading import Split
from src.kit.loading import Loader
from src.kit.shards.read import ShardImages
from src.kit.shards.read import ShardFolder

images = ShardImages(ShardFolder(Path(sys.argv[1])), 1)
split = Split(images, images.targets(), images.source.index.classes)
times_seen = np.zeros(len(split), np.uint8)
for pixels, _ in Loader(split, 500, [0.0] * 3, [1 / 255] * 3, shuffle=True, num_workers=2):
    numbers = np.rint(pixels[:, :, 0, 0]).astype(int) @ [65536, 256, 1]
    times_seen[numbers] += 1
assert (times_seen == 1).all()
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_an_epoch_of_fifty_thousand_samples_takes_little_memory(tmp_path):
    count = 50_000  # benchmarks/streaming.py of the template measures a million
    numbers = np.arange(count)
    pixels = np.stack([numbers // 65536, numbers // 256 % 256, numbers % 256], 1).astype(np.uint8)[:, None, None]
    split = Split(ArrayImages(pixels), numbers % 10, tuple("0123456789"))
    write_shards(split, "train", tmp_path / "train", 10_000_000, numbers, lambda: None)
    command = [sys.executable, "-c", EPOCH, str(tmp_path / "train")]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150e6
