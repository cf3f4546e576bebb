"""Shards from a server on loopback that fails now and then, through a cache folder of limited size.

The server speaks HTTP and as much of S3 as reading takes: ranges, and errors in XML for a key that it does not know."""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from paths import TEMPLATE
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.download import connection
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, Loader, Split
from src.kit.shards import Prefetcher, stores
from src.kit.shards.read import WINDOW, write_shards

SHARD = 51_200  # bytes
COUNT = 400


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; every `failing`th request for a shard is refused with 503, every other one of those cut off.

    Of S3's, every `failing`th answer is half of what was asked for, and `end` is where every file ends.
    """

    failing = 0
    end = 1 << 40
    keys = ("AKIDEXAMPLE",)
    delay_s = 0.0
    watch = staticmethod(lambda: None)  # called before each answer
    asked: list[str]
    lock = threading.Lock()

    def do_GET(self):
        with self.lock:
            self.asked.append(self.path.rpartition("/")[2])
            number = len(self.asked)
        time.sleep(self.delay_s)
        self.watch()
        if "Authorization" in self.headers:
            self.answer_s3(self.failing and number % self.failing == 0)
        elif self.failing and number % self.failing == 0 and number % (2 * self.failing):
            self.send_error(503)
        elif self.failing and number % self.failing == 0:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def answer_s3(self, short):
        path, keys = Path(self.translate_path(self.path)), "|".join(self.keys)
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        code, content = 206, path.read_bytes()[first : last + 1] if path.is_file() else b""
        if not re.search(rf"Credential=({keys})/", self.headers["Authorization"]):
            code, error = 403, "InvalidAccessKeyId"
        elif not path.is_file():
            code, error = 404, "NoSuchKey"
        elif last >= self.end and path.suffix == ".tar":
            code, error = 403, "AccessDenied"
        if code != 206:
            content = f"<Error><Code>{error}</Code><Message>{error} it is</Message></Error>".encode()
        content = content[: len(content) // 2] if short and path.suffix == ".tar" else content
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """400 samples in shards of 50 KB at `server.url`; sample i's pixels are i % 251."""
    monkeypatch.setattr(connection, "BACKOFF_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    write(tmp_path / "www")
    handler = type("Own", (Handler,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    server.daemon_threads = True
    server.handler = handler
    address = f"http://127.0.0.1:{server.server_address[1]}"
    server.url, server.bucket = f"{address}/www", "s3://www"
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name, value in (("ENDPOINT_URL", address), ("ACCESS_KEY_ID", "AKIDEXAMPLE"), ("SECRET_ACCESS_KEY", "of ours")):
        monkeypatch.setenv(f"AWS_{name}", value)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def write(folder: Path, first: int = 0) -> None:
    pixels = (
        np.zeros((COUNT, 4, 4, 3), np.uint8) + ((np.arange(COUNT) + first) % 251).astype(np.uint8)[:, None, None, None]
    )
    split = Split(ArrayImages(pixels), np.arange(COUNT), tuple(map(str, range(COUNT))))
    write_shards(split, "train", folder / "train", SHARD, np.arange(COUNT), lambda: None)


def load(server, cache: Path, limit: int = 20 * SHARD) -> Split:
    keys = [f"data.root={server.url}/", f"data.shard_cache={cache.as_posix()}", f"data.shard_cache_limit={limit}"]
    return build_dataset(load_config(["data=shards", "data.image_size=4", *keys]), "train")


def loader(split: Split, **options) -> Loader:
    return Loader(split, 10, [0.0] * 3, [1 / 255] * 3, **options)


def epoch(batches: Loader, first: int = 0) -> list[int]:
    """The targets of an epoch, whose pixels must be theirs."""
    found = []
    for images, targets in batches:
        assert np.array_equal(np.rint(images[:, 0, 0, 0]).astype(int), (targets + first) % 251)
        found += targets.tolist()
    return found


def used(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):  # goes on where pathlib raises: folders come and go while it looks
        for name in names:
            with suppress(FileNotFoundError):
                total += 0 if name.endswith(".lock") else (Path(parent) / name).stat().st_size
    return total


@pytest.mark.parametrize("workers", [0, 3])
def test_a_server_that_fails_now_and_then_loses_no_sample(server, tmp_path, workers):
    server.handler.failing = 3
    batches = loader(load(server, tmp_path / "cache"), shuffle=True, num_workers=workers)
    for number in range(2):
        batches.set_epoch(number)
        assert sorted(epoch(batches)) == list(range(COUNT))
    assert len(server.handler.asked) > 20


def test_what_is_in_the_cache_is_not_fetched_again(server, tmp_path):
    split = load(server, tmp_path / "cache")
    names = [shard.name for shard in split.images.source.index.shards]
    assert len(names) > 10
    for _ in range(2):
        assert sorted(epoch(loader(split, shuffle=True))) == list(range(COUNT))
    shards = [name for name in server.handler.asked if name.endswith(".tar")]
    assert sorted(shards) == sorted(names)
    server.handler.failing = 1  # only the index is asked for
    with pytest.raises(UserError, match=r"Cannot read .*/train/index\.json .*: check the network"):
        load(server, tmp_path / "cache")


@pytest.mark.parametrize("workers", [0, 4])
def test_the_cache_never_holds_more_than_its_limit(server, tmp_path, workers):
    cache, sizes = tmp_path / "cache", []
    server.handler.watch = staticmethod(lambda: sizes.append(used(cache)))
    limit = 6 * SHARD + 7000
    batches = loader(load(server, cache, limit), shuffle=True, num_workers=workers)
    for number in range(2):
        batches.set_epoch(number)
        for _, targets in batches:
            sizes.append(used(cache))
            assert len(targets) == 10
        assert sorted(epoch(batches)) == list(range(COUNT))
    assert max(sizes) <= limit
    assert max(sizes) > 4 * SHARD
    assert len([name for name in server.handler.asked if name.endswith(".tar")]) > 20  # some were fetched again


def test_a_cache_that_is_too_small_is_refused(server, tmp_path):
    with pytest.raises(UserError, match=r"data\.shard_cache_limit=150,000 bytes is less than the 256,000 of 5 shards"):
        load(server, tmp_path / "cache", 150_000)
    assert WINDOW + 1 == 5


def test_a_corrupt_shard_is_refused_in_one_sentence(server, tmp_path):
    path = tmp_path / "www" / "train" / "train-000003.tar"
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(loader(load(server, tmp_path / "cache")))
    message = str(caught.value)
    assert "train-000003.tar has other content than" in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").glob(f"{load(server, tmp_path).images.source.index.shards[3].sha256}*"))


def test_a_shard_that_decays_in_the_cache_is_noticed(server, tmp_path):
    split = load(server, tmp_path / "cache")
    list(loader(split))
    path = tmp_path / "cache" / f"{split.images.source.index.shards[2].sha256}.tar"
    content = bytearray(path.read_bytes())
    content[520] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"Sample 0 of .*{path.name} is damaged .*: delete that file, and fetch"):
        list(loader(split))
    path.unlink()
    assert sorted(epoch(loader(split))) == list(range(COUNT))


def test_a_wrong_address_is_told(server, tmp_path):
    server.url += "/nothing"
    with pytest.raises(UserError, match=r"nothing/train/index\.json answered 404 .*data\.root is what make_shards\.py"):
        load(server, tmp_path / "cache")


def test_an_index_that_never_ends_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr("src.kit.shards.stores.MAX_INDEX_BYTES", 1000)
    with pytest.raises(UserError, match="larger than any index"):
        load(server, tmp_path / "cache")


def test_other_data_at_the_same_address_are_not_taken_for_the_old(server, tmp_path):
    assert sorted(epoch(loader(load(server, tmp_path / "cache")))) == list(range(COUNT))
    for path in (tmp_path / "www" / "train").iterdir():
        path.unlink()
    (tmp_path / "www" / "train").rmdir()
    write(tmp_path / "www", first=100)
    assert sorted(epoch(loader(load(server, tmp_path / "cache")), first=100)) == list(range(COUNT))


def test_resumed_in_mid_epoch_fetches_only_the_rest(server, tmp_path):
    split = load(server, tmp_path / "one")
    whole = loader(split, shuffle=True, seed=1)
    expected = epoch(whole)
    server.handler.asked.clear()
    resumed = loader(load(server, tmp_path / "two"), shuffle=True, seed=1)
    resumed.set_epoch(0, first_batch=30)
    assert epoch(resumed) == expected[300:]
    shards = {name for name in server.handler.asked if name.endswith(".tar")}
    assert len(shards) < 0.6 * len(split.images.source.index.shards)


def test_the_next_shards_come_while_the_last_are_read(server, tmp_path):
    split = load(server, tmp_path / "cache")
    order = split.images.epoch_order(np.random.default_rng(0))
    numbers = split.images.shards_of(order)
    coming = numbers[np.sort(np.unique(numbers, return_index=True)[1])]
    split.images.expect(order)
    wait_for(lambda: fetched(server) == names(split, coming[:WINDOW]))
    split.images.get(order[:1])  # the first shard is in use: one more may come
    wait_for(lambda: fetched(server) == names(split, coming[: WINDOW + 1]))
    split.images.get(order[:60])
    wait_for(lambda: fetched(server) == names(split, coming[: 2 * WINDOW]))
    split.images.expect(order[-3:])  # the end of the epoch: only what it needs
    split.images.get(order[-3:])
    time.sleep(0.1)
    assert fetched(server) == names(split, [*coming[: 2 * WINDOW], *numbers[-3:]])


def test_the_loader_says_in_which_order_the_shards_will_be_needed(server, tmp_path, monkeypatch):
    split = load(server, tmp_path / "cache")
    said = []
    monkeypatch.setattr(split.images, "expect", lambda order: said.append(order.tolist()))
    for options in ({"shuffle": True, "rank": 1, "world_size": 2, "limit": 15}, {"rank": 0, "world_size": 2}):
        batches = loader(split, **options)
        batches.set_epoch(1, first_batch=3)
        assert epoch(batches) == said.pop()
    assert not said


def fetched(server) -> set[str]:
    return {name for name in server.handler.asked if name.endswith(".tar")}


def names(split: Split, shards) -> set[str]:
    return {split.images.source.index.shards[shard].name for shard in shards}


def wait_for(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_training_does_not_wait_for_shards_that_were_fetched_ahead():
    fetches, there = [], set()

    def fetch(shard: int) -> None:
        time.sleep(0.01)
        fetches.append(shard)
        there.add(shard)

    ahead = Prefetcher(fetch, 2)
    ahead.expect(range(20))
    late = 0
    for shard in range(20):
        time.sleep(0.02)  # training on a shard takes longer than fetching it
        late += shard not in there
        ahead.reached(shard)
    assert fetches == list(range(20))
    assert late <= 2


def test_a_failure_ahead_is_reported_by_whoever_needs_the_shard(server, tmp_path):
    split = load(server, tmp_path / "cache")
    (tmp_path / "www" / "train" / "train-000001.tar").unlink()
    split.images.expect(np.arange(COUNT))
    wait_for(lambda: "train-000003.tar" in server.handler.asked)
    assert len(split.images.get(np.arange(5))) == 5
    with pytest.raises(UserError, match=r"train-000001\.tar answered 404"):
        split.images.get(np.arange(COUNT))


def test_threads_and_processes_share_the_cache_without_a_framework(server, tmp_path):
    code = (
        "import sys, numpy as np; from src.kit.catalog import build_dataset; from src.kit.config import load_config\n"
        "split = build_dataset(load_config(sys.argv[1:]), 'train')\n"
        "images = split.images.get(np.random.default_rng(0).permutation(400))\n"
        "others = {'torch', 'paddle', 'webdataset', 'requests', 'fsspec'} & set(sys.modules)\n"
        "print(sorted(others) or int(images[:, 0, 0, 0].astype(int).sum()))"
    )
    server.handler.delay_s = 0.01
    keys = [f"data.root={server.url}", f"data.shard_cache={(tmp_path / 'cache').as_posix()}", "data.image_size=4"]
    command = [sys.executable, "-c", code, "data=shards", *keys]
    processes = [subprocess.Popen(command, cwd=TEMPLATE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    split = load(server, tmp_path / "cache")
    with ThreadPoolExecutor(6) as pool:
        orders = [np.random.default_rng(n).permutation(COUNT) for n in range(6)]
        sums = {int(images[:, 0, 0, 0].astype(int).sum()) for images in pool.map(split.images.get, orders)}
    assert sums == {int((np.arange(COUNT) % 251).sum())}
    assert {int(process.communicate()[0]) for process in processes} == sums
    shards = [name for name in server.handler.asked if name.endswith(".tar")]
    assert sorted(shards) == sorted(set(shards))


@pytest.fixture
def bucket(server, monkeypatch):
    """The server, whose shards are asked for as S3's, in pieces of 20 KB."""
    monkeypatch.setattr(stores, "PIECE", 20_000)
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()
    server.url = server.bucket
    return server


def test_a_bucket_that_answers_too_little_loses_no_sample_on_other_numbers_of_ranks(bucket, tmp_path):
    bucket.handler.failing = 4
    for number, ranks in enumerate((2, 3)):
        shares = []
        for rank in range(ranks):
            split = load(bucket, tmp_path / f"cache-{ranks}", 12 * SHARD)
            batches = loader(split, rank=rank, world_size=ranks, shuffle=True, num_workers=2)
            batches.set_epoch(number)
            shares += epoch(batches)
        assert len(shares) - COUNT == -COUNT % ranks
        assert set(shares) == set(range(COUNT))
    assert not list(tmp_path.rglob("*.part"))


def test_a_transfer_that_was_cut_goes_on_where_it_was(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "TOGETHER", 1)
    split = load(bucket, tmp_path / "cache")
    bucket.handler.end = 40_000
    with pytest.raises(UserError, match=r"Cannot fetch s3://www/train/train-000000\.tar \(AccessDenied it is\): check"):
        split.images.get(np.arange(3))
    (part,) = (tmp_path / "cache").glob("*.part")
    assert part.stat().st_size == 40_000
    bucket.handler.end, bucket.handler.asked[:] = 1 << 40, []
    assert len(split.images.get(np.arange(3))) == 3
    assert bucket.handler.asked == ["train-000000.tar"]


def test_what_a_bucket_refuses_is_one_sentence(bucket, tmp_path, monkeypatch):
    shard = tmp_path / "www" / "train" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(UserError, match=r"Cannot fetch s3://www/train/train-000001\.tar has other content than its"):
        list(loader(load(bucket, tmp_path / "cache")))
    bucket.url = "s3://www/nothing"
    with pytest.raises(UserError, match=r"s3://www/nothing/train/index\.json \(NoSuchKey it is\): check the network"):
        load(bucket, tmp_path / "cache")
    bucket.url, bucket.handler.keys = "s3://www", ("ANOTHER",)
    with pytest.raises(UserError, match=r"Cannot read s3://www/train/index\.json \(InvalidAccessKeyId it is\)"):
        load(bucket, tmp_path / "cache")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://127.0.0.1:1/x", r"^data\.root=ftp://127\.0\.0\.1:1/x cannot be reached \(.*\): check the network"),
        ("http://[", r"^data\.root=http://\[ is no URL: Invalid IPv6 URL\.$"),
        ("s3://AKID:secret@www", r"^data\.root holds a password, .*: leave it to environment variables\.$"),
        ("gs://www", r"^data\.root=gs://www cannot be read here \(.*gcsfs.*\): install that, and add it to"),
        ("nosuch://www", r"^data\.root=nosuch://www cannot be read \(Protocol not known: nosuch.*\): use a folder"),
        ("memory://none", r"Cannot read memory://none/train/index\.json .*: check the network"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence(tmp_path, url, message):
    with pytest.raises(UserError, match=message):
        build_dataset(load_config(["data=shards", f"data.root={url}"]), "train")


def test_any_storage_of_fsspec_will_do(tmp_path):
    import fsspec

    write(tmp_path / "www")
    fsspec.filesystem("memory").put(str(tmp_path / "www"), "/shards", recursive=True)
    keys = [f"data.shard_cache={(tmp_path / 'cache').as_posix()}", "data.root=memory://shards", "data.image_size=4"]
    assert sorted(epoch(loader(build_dataset(load_config(["data=shards", *keys]), "train")))) == list(range(COUNT))
