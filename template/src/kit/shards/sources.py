"""Where shards are read from: a folder, or a URL with a folder of limited size for the shards in use."""

import os
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError, parse_size
from src.kit.shards.ahead import Ahead
from src.kit.shards.cache import ShardCache
from src.kit.shards.index import INDEX, Index, parse_index, read_table

WINDOW = 4  # shards whose samples are mixed: a process has so many in use at a time, and as many are on their way


class Source(Protocol):
    """The shards of one split."""

    index: Index
    table: np.ndarray  # `TABLE` rows (N,)

    def open(self, shard: int) -> BinaryIO:
        """A shard's file, for reading at any place. Safe to call from several threads at once."""
        ...

    def expect(self, shards: list[int]) -> None:
        """Prepare to be asked for these shards in this order."""
        ...


class Folder:
    """Shards in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise UserError(
                f"{folder} holds no shards: write them with `python scripts/make_shards.py data=... --out "
                f"{folder.parent}`, or set data.root to their folder or URL."
            )
        self.folder = folder
        self.index = parse_index((folder / INDEX).read_bytes(), str(folder / INDEX))
        self.table = read_table(folder / self.index.table.name, self.index)
        missing = {shard.name for shard in self.index.shards} - set(os.listdir(folder))
        if missing:
            raise UserError(f"{folder} lacks {len(missing)} of its shards, such as {min(missing)}: copy them there.")

    def open(self, shard: int) -> BinaryIO:
        """The shard's own file."""
        return (self.folder / self.index.shards[shard].name).open("rb", buffering=0)

    def expect(self, shards: list[int]) -> None:
        """Nothing to prepare: the operating system reads ahead."""


class Remote:
    """Shards behind a URL, fetched when they are needed or shortly before."""

    def __init__(self, url: str, cache: ShardCache) -> None:
        self.url, self.cache = url, cache
        self.index = parse_index(cache.read_index(f"{url}/{INDEX}"), f"{url}/{INDEX}")
        self.table = read_table(cache.get_table(self.index.table, f"{url}/{self.index.table.name}"), self.index)
        largest = max(shard.bytes for shard in self.index.shards)
        needed = min((WINDOW + 1) * largest, sum(shard.bytes for shard in self.index.shards))
        if needed > cache.limit:
            raise UserError(
                f"data.shard_cache_limit={cache.limit:,} bytes is less than the {needed:,} of {WINDOW + 1} shards: "
                "raise it, or write smaller shards with --shard-size."
            )
        self.ahead = Ahead(self.fetch, min(WINDOW, cache.limit // largest - WINDOW))

    def open(self, shard: int) -> BinaryIO:
        """The shard's file in the cache folder."""
        self.ahead.reached(shard)
        while True:
            try:
                return self.cache.open(self.index.shards[shard])
            except FileNotFoundError:  # not there yet, or not any more
                self.fetch(shard)

    def fetch(self, shard: int) -> None:
        """Put a shard into the cache folder."""
        self.cache.fetch(self.index.shards[shard], f"{self.url}/{self.index.shards[shard].name}")

    def expect(self, shards: list[int]) -> None:
        """Fetch the first of these shards in the background, and the others while those before them are read."""
        self.ahead.expect(shards)


def open_source(cfg_data: DictConfig, split: str) -> Source:
    """The shards of a split in the folder or at the URL `data.root`."""
    root = str(cfg_data.root)
    if root.startswith(("http://", "https://")):
        folder = Path(cfg_data.shard_cache).expanduser()
        limit = parse_size(cfg_data.shard_cache_limit, "data.shard_cache_limit")
        return Remote(f"{root.rstrip('/')}/{split}", ShardCache(folder, limit))
    return Folder(Path(root).expanduser() / split)
