"""Shards on their way through: a folder that never holds more than so many bytes, shared by all processes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from src.kit.config import UserError
from src.kit.download import Broken, Restart, SourceFailed, ask, fetch, locked, retry
from src.kit.shards.index import File

MAX_INDEX_BYTES = 1 << 28  # 2 million shards
CHUNK = 1 << 20


class ShardCache:
    """Files named by their checksum: one that is there is the right one, whatever was written at its URL since."""

    def __init__(self, folder: Path, limit: int) -> None:
        """`limit`: bytes that the folder may hold."""
        self.folder, self.limit = folder, limit

    def open(self, shard: File) -> BinaryIO:
        """Open a shard for reading and note its use.

        Raises:
            FileNotFoundError: it isn't there.
        """
        file = self.path(shard).open("rb", buffering=0)
        with suppress(FileNotFoundError):  # deleted at this moment: what is open can still be read
            os.utime(self.path(shard))
        return file

    def path(self, shard: File) -> Path:
        """Where a shard lies once it is fetched."""
        return self.folder / f"{shard.sha256}.tar"

    def fetch(self, shard: File, url: str) -> None:
        """Fetch a shard, after deleting those that have not been used for longest.

        One download at a time, whoever asks: so the limit holds and nothing is fetched twice.

        Raises:
            UserError: the server or the disk fails, or the file is not the one in the index.
        """
        with locked(self.folder / "shards"):
            if not self.path(shard).is_file():
                self.make_room(shard.bytes)
                fetch(url, self.path(shard), f"sha256:{shard.sha256}", shard.bytes, quiet=True)

    def make_room(self, needed: int) -> None:
        """Delete the files that have not been used for longest until so many bytes can be added."""
        files = sorted((status.st_mtime_ns, path, status.st_size) for path, status in self.files())
        used = sum(size for _, _, size in files)
        for _, path, size in files:
            if used + needed <= self.limit:
                return
            if path.suffix != ".npy":
                try:
                    path.unlink()
                except PermissionError:  # Windows: someone reads it
                    continue
                used -= size

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """All files of the folder, unfinished downloads too, except locks."""
        for parent, _, names in os.walk(self.folder):
            for path in (Path(parent, name) for name in names if not name.endswith(".lock")):
                yield path, path.stat()

    def get_table(self, table: File, url: str) -> Path:
        """Fetch the table of samples, unless it is there already; tables are never deleted to make room."""
        with locked(self.folder / "shards"):
            return fetch(url, self.folder / f"{table.sha256}.npy", f"sha256:{table.sha256}", table.bytes, quiet=True)

    def read_index(self, url: str) -> bytes:
        """The content of index.json, asked for again while that may help.

        Raises:
            UserError: it cannot be had.
        """
        try:
            return retry(url, partial(read_all, url), lambda: 0, lambda: None)
        except (SourceFailed, Restart) as error:
            raise UserError(
                f"Cannot read {error}: check the network, and that data.root is what make_shards.py wrote."
            ) from error


def read_all(url: str) -> bytes:
    """Read a small file from a URL."""
    answer = ask(url, 0, None, {})
    content = bytearray()
    with answer.body:
        while chunk := answer.read(CHUNK):
            content += chunk
            if len(content) > MAX_INDEX_BYTES:
                raise SourceFailed(f"{url} is larger than any index of shards")
    if answer.total not in (None, len(content)):
        raise Broken(f"{len(content)} of {answer.total} bytes came")
    return bytes(content)
