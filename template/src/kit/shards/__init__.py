"""Data sets larger than the disk or with too many files: tar shards in a folder, behind HTTP or in a bucket."""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from src.kit.config import UserError
from src.kit.download import Restart, SourceFailed, locked
from src.kit.shards.read import (
    INDEX,
    WINDOW,
    ShardFile,
    ShardFolder,
    ShardImages,
    Source,
    parse_index,
    read_table,
    write_shards,
)
from src.kit.shards.stores import URL, Store, open_store

__all__ = ["ShardImages", "open_source", "parse_size", "write_shards"]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]?B)?", re.IGNORECASE)


def open_source(root: str, split: str, cache: str, cache_limit: int | str) -> Source:
    """Open the shards of a split.

    Args:
        root: folder that make_shards.py wrote, or the URL of its copy: http(s), or one that fsspec reads.
        split: "train", "val" or "test".
        cache: folder for the shards in use that come from a URL.
        cache_limit: largest size of this folder, in bytes or such as "20GB".

    Raises:
        UserError: no shards there, damaged ones, or a cache too small for them.
    """
    if URL.match(root):
        limit = parse_size(cache_limit, "data.shard_cache_limit")
        held = ShardCache(Path(cache).expanduser(), limit, open_store(root))
        return RemoteShards(f"{root.rstrip('/')}/{split}", held)
    return ShardFolder(Path(root).expanduser() / split)


class ShardCache:
    """Shards in files named by their checksum: an existing one is right, even if its URL has changed."""

    def __init__(self, folder: Path, limit: int, store: Store) -> None:
        """`limit`: bytes that the folder may hold; `store`: where missing files come from."""
        self.folder, self.limit, self.store = folder, limit, store

    def open(self, shard: ShardFile) -> BinaryIO:
        """Open a shard for reading and mark it as used.

        Raises:
            FileNotFoundError: it isn't in the cache.
        """
        file = self.path(shard).open("rb", buffering=0)
        with suppress(FileNotFoundError):  # deleted meanwhile: an open file can still be read
            os.utime(self.path(shard))
        return file

    def path(self, shard: ShardFile) -> Path:
        """The path of a shard in the cache."""
        return self.folder / f"{shard.sha256}.tar"

    def fetch(self, shard: ShardFile, url: str) -> None:
        """Fetch a shard, after deleting the least recently used ones if necessary.

        One download at a time on this machine keeps the limit and fetches nothing twice.

        Raises:
            UserError: the server or the disk fails, or the file differs from the index.
        """
        with locked(self.folder / "shards"):
            if not self.path(shard).is_file():
                self.make_room(shard.bytes)
                self.store.fetch(url, self.path(shard), shard)

    def make_room(self, needed: int) -> None:
        """Delete the least recently used files until `needed` bytes fit."""
        files = sorted((status.st_mtime_ns, path, status.st_size) for path, status in self.list_files())
        used = sum(size for _, _, size in files)
        for _, path, size in files:
            if used + needed <= self.limit:
                return
            if path.suffix != ".npy":
                try:
                    path.unlink()
                except PermissionError:  # Windows: it is being read
                    continue
                used -= size

    def list_files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """All files in the folder, including unfinished downloads, without locks."""
        for parent, _, names in os.walk(self.folder):
            for path in (Path(parent, name) for name in names if not name.endswith(".lock")):
                yield path, path.stat()

    def fetch_table(self, table: ShardFile, url: str) -> Path:
        """Fetch the table of samples if it is missing; tables are never deleted to make room."""
        with locked(self.folder / "shards"):
            return self.store.fetch(url, self.folder / f"{table.sha256}.npy", table)

    def read_index(self, url: str) -> bytes:
        """Download index.json, with retries.

        Raises:
            UserError: the download fails.
        """
        try:
            return self.store.read(url)
        except (SourceFailed, Restart) as error:
            raise UserError(
                f"Cannot read {error}: check the network, and that data.root is what make_shards.py wrote."
            ) from error


class Prefetcher:
    """Fetch up to `count` shards beyond the last one in use in the background, so that training doesn't wait."""

    def __init__(self, fetch: Callable[[int], None], count: int) -> None:
        self.fetch, self.count = fetch, max(count, 1)
        self.lock = threading.Lock()
        self.running = False
        self.coming: Sequence[int] = ()
        self.positions: dict[int, int] = {}
        self.done, self.last = 0, -1  # shards fetched so far; position of the furthest one in use

    def expect(self, shards: Sequence[int]) -> None:
        """Start fetching these shards, in the order in which they will be needed."""
        with self.lock:
            self.coming, self.positions = shards, {shard: position for position, shard in enumerate(shards)}
            self.done, self.last = 0, -1
        self.start()

    def reached(self, shard: int) -> None:
        """Note that a shard is in use."""
        if self.positions.get(shard, -1) > self.last:
            with self.lock:
                self.last = max(self.last, self.positions.get(shard, -1))
            self.start()

    def start(self) -> None:
        """Start the thread if there is something to fetch and it isn't running."""
        with self.lock:
            if self.running or self.done >= self.due():
                return
            self.running = True
        # a daemon: the program exits without waiting for a download, which the next run resumes
        threading.Thread(target=self.run, name="shards", daemon=True).start()

    def due(self) -> int:
        """The number of shards that should have been fetched by now."""
        return min(self.last + 1 + self.count, len(self.coming))

    def run(self) -> None:
        """Fetch until no shard is due."""
        while True:
            with self.lock:
                if self.done >= self.due():
                    self.running = False
                    return
                shard = self.coming[self.done]
                self.done += 1
            with suppress(UserError, OSError):  # the reader of this shard fetches it again and reports the error
                self.fetch(shard)


class RemoteShards:
    """Shards behind a URL, fetched when they are needed or shortly before."""

    def __init__(self, url: str, cache: ShardCache) -> None:
        self.url, self.cache = url, cache
        self.index = parse_index(cache.read_index(f"{url}/{INDEX}"), f"{url}/{INDEX}")
        self.table = read_table(cache.fetch_table(self.index.table, f"{url}/{self.index.table.name}"), self.index)
        largest = max(shard.bytes for shard in self.index.shards)
        needed = min((WINDOW + 1) * largest, sum(shard.bytes for shard in self.index.shards))
        if needed > cache.limit:
            raise UserError(
                f"data.shard_cache_limit={cache.limit:,} bytes is less than the {needed:,} of {WINDOW + 1} shards: "
                "raise it, or write smaller shards with --shard-size."
            )
        self.prefetcher = Prefetcher(self.fetch, min(WINDOW, cache.limit // largest - WINDOW))

    def open(self, shard: int) -> BinaryIO:
        """Open the shard's file in the cache folder, fetching it if necessary."""
        self.prefetcher.reached(shard)
        while True:
            try:
                return self.cache.open(self.index.shards[shard])
            except FileNotFoundError:  # not fetched yet, or deleted again
                self.fetch(shard)

    def fetch(self, shard: int) -> None:
        """Put a shard into the cache folder."""
        self.cache.fetch(self.index.shards[shard], f"{self.url}/{self.index.shards[shard].name}")

    def expect(self, shards: list[int]) -> None:
        """Fetch the first of these shards in the background, the others while earlier ones are read."""
        self.prefetcher.expect(shards)


def parse_size(text: str | int, key: str) -> int:
    """Bytes, from a number of them or a number with KB, MB, GB or TB (powers of 1000).

    Raises:
        UserError: names `key`, if the text is no size above 0.
    """
    match = SIZE.fullmatch(str(text).strip())
    size = round(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise UserError(f"{key} must be a size such as 256MB or 20GB, not {text!r}.")
    return size
